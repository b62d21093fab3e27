"""The node as a process on its socket: who may ask, what it answers, and what its death does."""

from __future__ import annotations

import asyncio
import ctypes
import grp
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from tests.contract.engine import EngineContract
from tests.host.node.conftest import spec
from tests.host.node.inside import shell
from tests.host.node.waiting import DEADLINE, until

from bastide.domain.machine import MachineSpec, MachineState
from bastide.engine.contract import Engine, EngineError, EngineUnavailable, UnknownMachine
from bastide.engine.local import LocalEngine
from bastide.node.machines.host import Host
from bastide.settings import Settings

pytestmark = pytest.mark.host


class Daemon:
    """`python -m bastide.node` with settings of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        network, machines = self.settings.network, self.settings.machines
        environment = {
            **os.environ,
            "BASTIDE_CONFIG": "/nonexistent",
            "BASTIDE_STATE_DIR": str(self.settings.state_dir),
            "BASTIDE_RUN_DIR": str(self.settings.run_dir),
            "BASTIDE_USER": self.settings.user,
            "BASTIDE_NETWORK__TABLE": network.table,
            "BASTIDE_NETWORK__SUBNET": str(network.subnet),
            "BASTIDE_MACHINES__ID_BASE": str(machines.id_base),
            "BASTIDE_STORAGE__POOL": str(self.settings.storage.pool),
        }
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bastide.node", env=environment,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        engine = LocalEngine(self.settings.node_socket)
        try:
            async with asyncio.timeout(DEADLINE):
                while True:
                    with suppress(EngineUnavailable):
                        await engine.capabilities()
                        return
                    await asyncio.sleep(0.02)
        finally:
            await engine.close()

    async def end(self, number: signal.Signals) -> int:
        """Send it a signal and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None


@pytest.fixture
async def daemon(host: Host, settings: Settings) -> AsyncIterator[Daemon]:
    """A running node process, whose machines are gone afterwards."""
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # not subreaper: orphans of a dead node go to init
    daemon = Daemon(settings)
    await daemon.start()
    try:
        yield daemon
    finally:
        if not daemon.running:
            await daemon.start()
        engine = LocalEngine(settings.node_socket)
        for status in await engine.poll():
            await engine.delete(status.id)
        await engine.close()
        assert await daemon.end(signal.SIGTERM) == 0


@pytest.fixture
async def engine(daemon: Daemon) -> AsyncIterator[Engine]:
    engine = LocalEngine(daemon.settings.node_socket)
    yield engine
    await engine.close()


class TestLocalEngine(EngineContract):
    """The local engine over a real node keeps the Engine contract."""

    @pytest.fixture
    def spec(self) -> MachineSpec:
        return spec()


@asynccontextmanager
async def client(daemon: Daemon) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(daemon.settings.node_socket))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://node", timeout=DEADLINE
    ) as http:
        yield http


async def test_the_socket_is_for_one_group(daemon: Daemon) -> None:
    """0660, owned by root and the api's group; nothing else listens."""
    found = daemon.settings.node_socket.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert (found.st_uid, found.st_gid) == (0, grp.getgrnam("root").gr_gid)


async def test_a_second_node_does_not_start(daemon: Daemon) -> None:
    """Two nodes on one run directory would fight: the second says so and ends."""
    second = Daemon(daemon.settings)
    starting = asyncio.create_task(second.start())
    await until(lambda: second.process is not None)
    assert second.process is not None
    async with asyncio.timeout(DEADLINE):
        assert await second.process.wait() == 1
    await starting  # the first one answers it


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "id"),
        (b"nonsense", ""),
        (b"[]", ""),
        (b'{"id": "../../etc"}', "id"),
        (json.dumps({"id": "ws_00000001", "image": "debian-12"}).encode(), "resources"),
        (json.dumps({**spec().model_dump(mode="json"), "surprise": 1}).encode(), "surprise"),
        (b'{"env": "' + b"x" * (3 * 2**20) + b'"}', None),
    ],
)
async def test_bad_documents_are_refused(daemon: Daemon, body: bytes, field: str | None) -> None:
    """A document that is none gets 422 with the field, never a 500."""
    async with client(daemon) as http:
        answer = await http.post("/v1/machines", content=body)
    assert answer.status_code == 422
    assert answer.json()["error"] == "validation_error"
    assert answer.json()["details"].get("field") == field


async def test_bad_calls_are_refused(daemon: Daemon) -> None:
    """Unknown paths, wrong methods, ids that do not match, wild limits: typed refusals."""
    async with client(daemon) as http:
        await http.post("/v1/machines", content=spec().model_dump_json())
        expected = {
            ("GET", "/v1/nothing"): (404, "not_found"),
            ("PUT", "/v1/machines"): (405, "method_not_allowed"),
            ("GET", "/v1/machines/ws_ffffffff"): (404, "not_found"),
            ("GET", "/v1/machines/..%2f..%2fetc"): (404, "not_found"),
            ("GET", f"/v1/machines/{spec().id}/console?limit=-1"): (422, "validation_error"),
            ("GET", f"/v1/machines/{spec().id}/console?limit=9999999"): (422, "validation_error"),
            ("POST", f"/v1/machines/{spec().id}/pause"): (409, "conflict"),
        }
        for (method, path), (status, code) in expected.items():
            answer = await http.request(method, path)
            assert (answer.status_code, answer.json()["error"]) == (status, code), path
        answer = await http.post(
            f"/v1/machines/{spec(2).id}/start", content=spec().model_dump_json()
        )
        assert answer.status_code == 422
        answer = await http.request("DELETE", "/v1/machines/ws_ffffffff")
        assert answer.status_code == 204


async def test_death_of_the_node_disturbs_no_machine(
    daemon: Daemon, host: Host, engine: Engine
) -> None:
    """SIGKILL while ten machines work: all go on, and the next node knows them as they were."""

    async def boot(number: int) -> None:
        await engine.create(spec(number))
        await engine.start(spec(number))

    await asyncio.gather(*(boot(number) for number in range(10)))
    before = {status.id: status for status in await engine.poll()}
    counting = "i=0; while :; do i=$((i+1)); echo $i > /run/count; sleep 0.02; done"
    await shell(host, spec(0).id, f"({counting}) > /dev/null 2>&1 &")
    await daemon.end(signal.SIGKILL)

    async def goes_on() -> None:
        count = "cat /run/count 2> /dev/null"  # it may not be there yet, or just be written anew
        seen = (await shell(host, spec(0).id, count)).output
        wait = f"until [ 0$({count}) -gt {seen or 0} ]; do sleep 0.02; done"
        assert (await shell(host, spec(0).id, wait)).code == 0

    await goes_on()
    await daemon.start()
    assert {status.id: status for status in await engine.poll()} == before
    await goes_on()
    assert (await engine.start(spec(3))).boot_id == before[spec(3).id].boot_id
    assert (await engine.pause(spec(3).id)).state is MachineState.PAUSED
    stopped = await engine.stop(spec(3).id, 10)
    assert stopped.exit is not None
    assert stopped.exit.code is None  # its parent was another process


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.2, 0.4])
async def test_death_in_the_middle_of_creations(
    daemon: Daemon, engine: Engine, delay: float
) -> None:
    """SIGKILL amid ten creations: each can be repeated to the end, and nothing is left over."""

    async def boot(number: int) -> MachineState:
        await engine.create(spec(number))
        return (await engine.start(spec(number))).state

    tasks = [asyncio.create_task(boot(number)) for number in range(10)]
    await asyncio.sleep(delay)  # the moment of death is what varies here, nothing is waited for
    await daemon.end(signal.SIGKILL)
    await asyncio.gather(*tasks, return_exceptions=True)
    await daemon.start()

    async def again(number: int) -> MachineState:
        # a runtime the dead node had started may still finish; a repeat is the way on
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    return await boot(number)
                except UnknownMachine:
                    raise
                except EngineError:
                    await asyncio.sleep(0.1)

    states = await asyncio.gather(*(again(number) for number in range(10)))
    assert set(states) == {MachineState.RUNNING}


async def test_a_machine_that_ended_while_no_node_ran(
    daemon: Daemon, host: Host, engine: Engine
) -> None:
    """The next node finds it stopped, cleans it, and can start it again."""
    await engine.create(spec())
    await engine.start(spec())
    await daemon.end(signal.SIGKILL)
    record = host.machines_dir / spec().id / "boot.json"
    process = Path(f"/proc/{json.loads(record.read_text())['pid']}")
    await shell(host, spec().id, "kill 1")
    await until(lambda: not process.exists())
    await daemon.start()
    found = await engine.status(spec().id)
    assert found.state is MachineState.STOPPED
    assert found.exit is not None
    assert (found.exit.code, found.exit.requested) == (None, False)
    assert (await engine.start(spec())).state is MachineState.RUNNING
