"""How workspaces live, on real machines: pause, crashes, leases, sizes, a reboot of the host."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.processes import kill_all

from bastide.client import (
    Bastide,
    ConflictError,
    NotFoundError,
    Output,
    Workspace,
)
from bastide.node.cgroups import detect
from bastide.supervisor.process import Process

pytestmark = pytest.mark.cloud
DEADLINE = 60.0
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
Make = Callable[..., Workspace]


def until(reached: Callable[[], Any], what: str) -> Any:
    """What `reached` gives once it is not false; fails after the deadline."""
    end = time.monotonic() + DEADLINE
    while not (found := reached()):
        assert time.monotonic() < end, f"not within {DEADLINE:.0f} s: {what}"
        time.sleep(0.05)
    return found


def state(client: Bastide, workspace: str) -> str:
    """Its status now; `gone` when it does not exist."""
    try:
        return client.workspaces.get(workspace).status
    except NotFoundError:
        return "gone"


def until_state(client: Bastide, workspace: str, wanted: str) -> None:
    """Wait for a status."""
    until(lambda: state(client, workspace) == wanted, f"{workspace} is {wanted}")


def sh(client: Bastide, workspace: str, line: str) -> str:
    """What a line of shell prints inside."""
    return client.workspaces.runtime(workspace).exec.run(line, timeout=60).check().stdout


def numbers(events: Iterator[Any]) -> Iterator[int]:
    """The numbers a counting command prints, whole lines only."""
    rest = b""
    for event in events:
        if isinstance(event, Output):
            *lines, rest = (rest + event.data).split(b"\n")
            yield from (int(line) for line in lines)


def test_pause_freezes_and_resume_goes_on(
    cloud: Cloud, client: Bastide, workspace: Workspace
) -> None:
    """Frozen: no processor time, clear answers at once. Resumed: same memory, connection, clock."""
    runtime = client.workspaces.runtime(workspace.id)
    with runtime.exec.stream(["sh", "-c", COUNT]) as events:
        counting = numbers(events)
        seen = [next(counting) for _ in range(5)]
        client.workspaces.pause(workspace.id)
        assert state(client, workspace.id) == "paused"
        token = client.workspaces.details(workspace.id)["token"]
        answer = httpx.get(
            f"{cloud.environment['BASTIDE_GATEWAY_URL']}/health",
            headers={"Authorization": f"Bearer {token}"},
            timeout=20,
        )
        assert answer.status_code == 409
        assert answer.json()["code"] == "vm_paused"
        assert "resume" in answer.json()["message"]
        began = time.monotonic()  # by now its last moments are charged to it
        first = client.workspaces.details(workspace.id)["stats"]["cpu_seconds"]
        until(lambda: time.monotonic() - began > 1, "a second has passed")
        assert client.workspaces.details(workspace.id)["stats"]["cpu_seconds"] == first
        client.workspaces.resume(workspace.id)
        seen += [next(counting) for _ in range(20)]
    assert seen == list(range(1, len(seen) + 1)), "the counter lost or repeated a number"
    assert abs(float(sh(client, workspace.id, "date +%s.%N")) - time.time()) < 2


def test_a_crash_is_restarted_with_back_off(client: Bastide, make_workspace: Make) -> None:
    """A command that fails is started again, later each time, up to max_restarts; all is told."""
    config = {"restart_policy": "on-failure", "max_restarts": 2, "cmd": "sleep 0.3; exit 3"}
    made = make_workspace(memory_mb=128, config=config, wait=False)
    until_state(client, made.id, "stopped")
    info = client.workspaces.lifecycle(made.id).restart_info
    assert info is not None
    assert info["count"] == 2
    assert [end["code"] for end in info["history"]] == [3, 3, 3]
    assert [end["delay"] for end in info["history"]] == [None, 2.0, 1.0]


@pytest.mark.parametrize(
    ("command", "code", "number", "oom"),
    [
        (["sh", "-c", "exit 0"], 0, None, False),
        (["sh", "-c", "exit 137"], 137, None, False),
        (["sh", "-c", "kill -9 $$"], 137, 9, False),
        ("exec no-such-program", 127, None, False),
        (["python3", "-c", "x = bytearray(1 << 29); print(len(x))"], 137, 9, True),
    ],
    ids=["done", "failed", "killed", "not found", "out of memory"],
)
def test_the_end_of_the_command_is_the_machines(
    client: Bastide, make_workspace: Make, command: Any, code: int, number: int | None, *, oom: bool
) -> None:
    """The main command's exit is the machine's; a signal and a shortage of memory are told."""
    config = {"restart_policy": "no", "cmd": command}
    made = make_workspace(memory_mb=128, config=config, wait=False)
    until_state(client, made.id, "stopped")
    info = client.workspaces.lifecycle(made.id).restart_info
    assert info is not None
    assert [(end["code"], end["signal"]) for end in info["history"]] == [(code, number)]
    ended = client.workspaces.info(made.id).last_exit
    assert ended is not None
    assert (ended["code"], ended["signal"]) == (code, number)
    assert (ended["oom"], ended["requested"]) == (oom, False)
    assert client.workspaces.get(made.id).info.user_requested_stop is False  # type: ignore[union-attr]


def test_a_commands_environment(client: Bastide, make_workspace: Make) -> None:
    """The command sees `env`, and the machine runs as long as it does."""
    made = make_workspace(env={"WORD": "a b"}, cmd=["sh", "-c", "echo $WORD > /w; exec sleep 99"])
    line = "cat /w 2>/dev/null; true"  # the machine is ready before its command has begun
    assert until(lambda: sh(client, made.id, line), "the command wrote") == "a b\n"


@pytest.mark.parametrize(("action", "after"), [("stop", "stopped"), ("pause", "paused"),
                                               ("remove", "gone")])  # fmt: skip
def test_a_lease_ends(client: Bastide, make_workspace: Make, action: str, after: str) -> None:
    """A short lease stops, pauses or removes; pings keep it alive until they stop."""
    made = make_workspace(memory_mb=128, config={"ttl": 6, "ttl_action": action})
    boot = client.workspaces.info(made.id).boot_id
    end = time.monotonic() + 7
    while time.monotonic() < end:
        client.workspaces.ping(made.id)
        time.sleep(0.2)
    assert client.workspaces.info(made.id).boot_id == boot
    until_state(client, made.id, after)
    if after == "gone":
        found = [one.id for one in client.workspaces.archived(limit=100).workspaces]
        assert made.id in found
    else:
        with pytest.raises(ConflictError, match="has ended"):
            client.workspaces.ping(made.id)


def test_removed_on_exit(client: Bastide, make_workspace: Make) -> None:
    """`remove_on_exit` deletes the workspace when its command ends."""
    config = {"ttl": "1h", "remove_on_exit": True, "cmd": "sleep 1"}
    made = make_workspace(memory_mb=128, config=config, wait=False)
    until_state(client, made.id, "gone")


def test_sizes(client: Bastide, make_workspace: Make) -> None:
    """Processor and memory change in the running machine and are enforced; a disk by a new boot."""
    made = make_workspace(cpus=1, memory_mb=512, disk_size_mb=256)
    boot = client.workspaces.info(made.id).boot_id
    held = "x = bytearray(200 << 20); import time; print('held', flush=True); time.sleep(600)"
    with client.workspaces.runtime(made.id).exec.stream(["python3", "-c", held]) as events:
        assert any(isinstance(event, Output) for event in events)
        done = client.workspaces.resize(made.id, cpus=0.5, memory_mb=384)
    assert done.updated == {"cpus": 0.5, "memory_mb": 384}
    assert not done.relaunched
    assert client.workspaces.info(made.id).boot_id == boot
    stats = client.workspaces.details(made.id)["stats"]
    assert stats["memory_limit_bytes"] == 384 << 20
    used = "python3 -c 'import time,os; t=time.time(); \nwhile time.time()-t<1: pass\nprint(time.process_time())'"  # noqa: E501
    assert float(sh(client, made.id, used)) < 0.75
    sh(client, made.id, "echo kept > /root/kept")
    done = client.workspaces.resize(made.id, memory_mb=128)  # 200 are in use: not hot
    assert done.relaunched
    assert client.workspaces.details(made.id)["stats"]["memory_limit_bytes"] == 128 << 20
    done = client.workspaces.resize(made.id, disk_size_mb=512)
    assert done.relaunched
    assert sh(client, made.id, "cat /root/kept") == "kept\n"
    blocks = int(sh(client, made.id, "df -k --output=size / | tail -1"))
    assert 400 * 1024 < blocks < 512 * 1024


def test_destroy_and_begin_anew(client: Bastide, workspace: Workspace) -> None:
    """What was destroyed starts again from its image, without what was written."""
    sh(client, workspace.id, "echo lost > /root/lost")
    client.workspaces.destroy(workspace.id)
    assert state(client, workspace.id) == "stopped"
    assert workspace.id in [one.id for one in client.workspaces.archived(limit=100).workspaces]
    client.workspaces.start(workspace.id)
    assert sh(client, workspace.id, "ls /root") == ""
    sh(client, workspace.id, "echo lost > /root/lost")
    client.workspaces.reinstall(workspace.id)
    assert sh(client, workspace.id, "ls /root") == ""


def test_conflicting_calls(client: Bastide, workspace: Workspace) -> None:
    """Of calls at the same time one wins, the others join it or get 409 with the state."""
    workspaces = client.workspaces
    calls = [workspaces.stop, workspaces.pause, workspaces.restart, workspaces.resume,
             workspaces.start, workspaces.stop]  # fmt: skip

    def call(verb: Callable[[str], None]) -> str:
        try:
            verb(workspace.id)
        except ConflictError as error:
            return str(error.details["state"])
        return ""

    for _ in range(3):
        with ThreadPoolExecutor(len(calls)) as pool:
            answers = list(pool.map(call, calls))
        assert "" in answers
        known = {"running", "stopped", "paused", "starting", "stopping", ""}
        assert set(answers) <= known
        if state(client, workspace.id) == "paused":
            workspaces.resume(workspace.id)
        workspaces.start(workspace.id)
        assert sh(client, workspace.id, "echo ok") == "ok\n"


def test_after_a_reboot_of_the_host(cloud: Cloud, client: Bastide, make_workspace: Make) -> None:
    """With every process and machine killed, what should run runs again, with all it wrote.

    What was paused has lost its memory and is stopped, and so is what has a lease, which is kept;
    what is to be removed on exit is removed.
    """
    configs: dict[str, dict[str, Any]] = {
        "always": {"restart_policy": "always"},
        "unless-stopped": {"restart_policy": "unless-stopped"},
        "no": {"restart_policy": "no"},
        "on-failure": {"restart_policy": "on-failure"},
        "paused": {"restart_policy": "always"},
        "temporary": {"ttl": "1h", "ttl_action": "remove"},
        "fleeting": {"ttl": "1h", "remove_on_exit": True},
        "halted": {"restart_policy": "always"},
    }
    made = {
        name: make_workspace(memory_mb=128, config=config).id for name, config in configs.items()
    }
    write = "head -c 65536 /dev/urandom > /root/data; sync; md5sum /root/data"
    sums = {name: sh(client, one, write) for name, one in made.items()}
    client.workspaces.pause(made["paused"])
    client.workspaces.stop(made["halted"])
    lease = client.workspaces.lifecycle(made["temporary"])
    kill_all(cloud)
    kill_machines(cloud, [one for name, one in made.items() if name != "halted"])
    cloud.run("up", "--detach")
    for name in ("always", "unless-stopped"):
        # until the node has been polled, the row is as it was before
        info = until(partial(restarted, client, made[name]), name)
        assert (info["count"], info["history"][0]["cause"]) == (0, "lost")
    until_state(client, made.pop("fleeting"), "gone")
    for name in ("no", "on-failure", "paused", "temporary"):
        until_state(client, made[name], "stopped")
        info = client.workspaces.lifecycle(made[name]).restart_info
        assert info is not None
        assert (info["history"][0]["cause"], info["history"][0]["restarted"]) == ("lost", False)
    kept = client.workspaces.lifecycle(made["temporary"])
    assert (kept.mode, kept.ttl_action) == ("temporary", "remove")
    assert kept.ttl_expires_at == lease.ttl_expires_at is not None
    assert state(client, made["halted"]) == "stopped"
    for name, one in made.items():
        client.workspaces.start(one)
        assert sh(client, one, "md5sum /root/data") == sums[name]


def restarted(client: Bastide, workspace: str) -> Any:
    """What its restarts were, once one is told and it is ready again."""
    info = client.workspaces.lifecycle(workspace).restart_info
    return info if info and client.workspaces.get(workspace).ready else None


def kill_machines(cloud: Cloud, machines: list[str]) -> None:
    """Kill -9 of machines whose node is gone; frozen ones are thawed to die of it."""
    cgroups = detect(cloud.settings.network.table)
    for machine in machines:
        record = cloud.settings.run_dir / "machines" / machine / "boot.json"
        process = Process.find(json.loads(record.read_text())["pid"])
        assert process is not None
        assert process.signal(signal.SIGKILL)
        cgroups.thaw(machine)
        assert process.wait(DEADLINE)


def test_the_command_line(cloud: Cloud, workspace: Workspace) -> None:
    """Pause, resume, lease, ping, sizes, quota and estimate as a person uses them."""
    name = workspace.id
    cloud.run("ws", "pause", name)
    assert cloud.json("ws", "lifecycle", name)["status"] == "paused"
    refused = cloud.run("ws", "exec", name, "--", "true", check=False)
    assert refused.returncode == 1
    assert "vm_paused" in refused.stderr
    cloud.run("ws", "resume", name)
    leased = cloud.json("ws", "ttl", name, "1h", "--action", "remove")
    assert (leased["mode"], leased["ttl_action"]) == ("temporary", "remove")
    assert cloud.json("ws", "ping", name, "--seconds", "60")["ttl"] == "1h"
    assert cloud.json("ws", "ttl", name, "off")["mode"] == "permanent"
    assert "mode" in cloud.run("ws", "lifecycle", name).stdout
    assert cloud.json("ws", "resize", name, "--cpus", "0.5")["updated"] == {"cpus": 0.5}
    assert cloud.run("ws", "resize", name, check=False).returncode == 2
    assert cloud.json("quota")["can_create"] is True
    assert "owned" in cloud.run("quota").stdout
    assert cloud.json("estimate", "--cpus", "2")["max"] > 0
    assert cloud.run("ws", "destroy", name, check=False).returncode == 2
    cloud.run("ws", "destroy", name, "--yes")
    assert name in cloud.run("ws", "archived").stdout
