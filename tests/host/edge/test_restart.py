"""HAProxy is killed, restarted, slow to come, and never left with an old map."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from tests.host.edge.stage import ONE, RAW_ONE, RAW_TWO, SUBNET, TWO, Stage, until

from bastide.edge.edge import Edge, live_map, map_directory
from bastide.edge.maps import GatewayEntry
from bastide.edge.runtime_socket import RuntimeSocketError

pytestmark = pytest.mark.host


async def status(stage: Stage, workspace: str = ONE, generation: int = 1) -> int:
    async with httpx.AsyncClient(base_url=stage.gateway, timeout=60, trust_env=False) as client:
        answer = await client.get("/health", headers=stage.bearer(workspace, generation))
        return answer.status_code


async def test_killed_haproxy_keeps_its_map(stage: Stage) -> None:
    """After kill -9 the new process has every entry, without the control plane's help."""
    await stage.edge.publish(TWO, "127.0.0.12", 7, "open", RAW_TWO)
    await stage.kill_haproxy()
    await stage.start_haproxy()
    assert await status(stage) == 200
    assert await status(stage, TWO, 1) == 401
    assert await status(stage, TWO, 7) == 200


async def test_changes_while_it_is_down(stage: Stage) -> None:
    """What is published or withdrawn while HAProxy is dead is in force when it comes back."""
    await stage.kill_haproxy()
    await stage.edge.publish(ONE, "127.0.0.11", 2, "closed", RAW_ONE)
    await stage.edge.withdraw(TWO)
    await stage.start_haproxy()
    assert await status(stage, ONE, 2) == 403
    assert await status(stage, TWO) == 404


async def test_run_catches_up(stage: Stage) -> None:
    """A HAProxy that started with an older map is brought up to date by itself."""
    stale = live_map(stage.settings).read_bytes()
    runner = asyncio.create_task(stage.edge.run(interval=0.05))
    try:
        await stage.kill_haproxy()
        await stage.edge.publish(ONE, "127.0.0.11", 2, "disabled", RAW_ONE)
        current = map_directory(stage.settings) / "workspaces.map"
        newest = current.read_bytes()
        current.write_bytes(stale)
        await stage.start_haproxy()
        current.write_bytes(newest)

        async def disabled() -> bool:
            return await status(stage, ONE, 2) == 403

        await until(disabled)
    finally:
        runner.cancel()


async def test_a_publish_after_its_return_is_in_force(stage: Stage) -> None:
    """Once HAProxy is back, a publish is in force when it returns, not when `run` looks again."""
    await stage.kill_haproxy()
    await stage.edge.publish(ONE, "127.0.0.11", 1, "closed", RAW_ONE)
    await stage.start_haproxy()
    await stage.edge.publish(ONE, "127.0.0.11", 3, "open", RAW_ONE)
    assert await status(stage, ONE, 3) == 200


async def test_new_control_plane(stage: Stage) -> None:
    """A control plane that starts anew keeps what is in the file until it syncs."""
    edge = Edge(map_directory(stage.settings), stage.runtime, SUBNET)
    await edge.publish(TWO, "127.0.0.12", 2, "open", RAW_TWO)
    await stage.kill_haproxy()
    await stage.start_haproxy()
    assert await status(stage) == 200
    assert await status(stage, TWO, 2) == 200
    await edge.sync([])
    assert await status(stage) == 404


async def test_many_entries(stage: Stage) -> None:
    """A map of thousands is replaced in one step; changes at once all take effect."""
    many = [
        GatewayEntry(f"ws_{number:08x}", f"127.0.0.{10 + number % 200}", 1, "open", RAW_ONE)
        for number in range(3000)
    ]
    await stage.edge.sync(many)
    held = await stage.runtime.entries()
    assert held == {entry.workspace_id: entry.value() for entry in many}
    changed = [f"ws_{number:08x}" for number in range(0, 3000, 30)]
    await asyncio.gather(
        *(stage.edge.publish(name, "127.0.0.11", 5, "closed", RAW_ONE) for name in changed),
        *(stage.edge.withdraw(f"ws_{number:08x}") for number in range(1, 3000, 30)),
    )
    held = await stage.runtime.entries()
    assert {name for name, value in held.items() if value.startswith("closed:5:")} == set(changed)
    assert len(held) == 2900
    fresh = Edge(map_directory(stage.settings), stage.runtime, SUBNET)
    assert len(fresh._lines) == 2900


async def test_dead_socket(stage: Stage) -> None:
    """A dead HAProxy is an error of the socket at once, and none of `publish`."""
    await stage.kill_haproxy()
    with pytest.raises(RuntimeSocketError):
        await stage.runtime.process()
    await stage.edge.publish(ONE, "127.0.0.11", 1, "open", RAW_ONE)


async def test_who_may_touch_what(stage: Stage) -> None:
    """Workers run without root; socket, map and configuration are for their owners only."""
    assert stage.process is not None
    with open(f"/proc/{stage.process.pid}/status") as file:  # noqa: PTH123, ASYNC230
        text = file.read()
    uids = next(line for line in text.splitlines() if line.startswith("Uid:")).split()[1:]
    assert set(uids) == {"65534"}
    groups = next(line for line in text.splitlines() if line.startswith("Groups:")).split()[1:]
    assert set(groups) <= {"65534"}
    assert stage.settings.edge_socket.stat().st_mode & 0o777 == 0o600
    assert stage.settings.edge_socket.owner() == "daemon"
    for file_name in ("workspaces.map", "haproxy.cfg"):
        assert (live_map(stage.settings).parent / file_name).stat().st_mode & 0o777 == 0o600
    assert stage.key not in (live_map(stage.settings).parent / "haproxy.cfg").read_text()
