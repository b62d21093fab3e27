"""Snapshots with a real agent: memory, connections, files and disk come back as they were."""

from __future__ import annotations

import ast
import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.host.node.conftest import opened_node, spec
from tests.host.node.inside import shell
from tests.host.node.waiting import until

from bastide.doctor import storage
from bastide.domain.machine import MachineState, RuntimeAccess, SnapshotAfter
from bastide.domain.network import NetworkPolicy
from bastide.node import kernel
from bastide.node.agent import tell
from bastide.node.errors import BootFailed, Conflict, NoSnapshot, NoSpace, NotFound, Unsupported
from bastide.node.machines import renewal
from bastide.node.machines.criu import Criu
from bastide.node.machines.host import Host
from bastide.node.network import Network
from bastide.node.node import Node
from bastide.settings import Settings

pytestmark = pytest.mark.host

Answer = tuple[str, str, list[int], str, bytes, int, float]
TOKEN = "ab" * 32
POLICY = NetworkPolicy(public_access=True, ingress_ports=(9990, 7000))
SPEC = spec(network=POLICY, runtime=RuntimeAccess(enabled=True, token=TOKEN))
MACHINE = SPEC.id
SIZES = SPEC.resources

PROGRAM = """
import ctypes, hashlib, os, select, socket, threading, time
heap = os.urandom(8 << 20)
counts = [0, 0]
def count(number):
    while True:
        counts[number] += 1
        time.sleep(0.005)
for number in (0, 1):
    threading.Thread(target=count, args=(number,), daemon=True).start()
log = open("/root/log", "a", buffering=1)
gone = open("/root/gone", "w+"); gone.write("kept"); gone.flush(); os.unlink("/root/gone")
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(os.O_NONBLOCK)
os.makedirs("/root/watched", exist_ok=True)
assert libc.inotify_add_watch(watch, b"/root/watched", 0x100) > 0
pidfd = os.pidfd_open(os.getpid())
memory = os.memfd_create("m"); os.write(memory, b"kept too")
listener = socket.create_server(("0.0.0.0", 7000))
connection, _ = listener.accept()
for line in connection.makefile("r"):
    log.write(line)
    os.lseek(memory, 0, 0); gone.seek(0)
    try:
        noticed = len(os.read(watch, 4096))
    except BlockingIOError:
        noticed = 0
    connection.sendall(repr((line.strip(), hashlib.sha1(heap).hexdigest(), list(counts),
        gone.read(), os.read(memory, 99), noticed, time.time())).encode() + b"\\n")
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The test is what faces the network: it may call what the edge may."""
    return settings.model_copy(update={"edge_user": "root"})


async def restarted(host: Host) -> Host:
    """The host as a node sees it that has just started."""
    fresh = Host.of(host.settings, Network(host.settings))
    await fresh.runc.find()
    return fresh


class Peer:
    """The far end of a connection with PROGRAM."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("r")

    def ask(self, text: str) -> Answer:
        self._connection.sendall(f"{text}\n".encode())
        answer: Answer = ast.literal_eval(self._lines.readline())
        assert answer[0] == text
        return answer

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


@asynccontextmanager
async def busy(node: Node) -> AsyncIterator[Peer]:
    """A running machine with PROGRAM in it, and an established connection to that."""
    await node.fleet.create(SPEC)
    status = await node.power.start(SPEC)
    python = "/.bastide/bin/python3.11"
    started = await request(
        node, "POST", "/exec/stream", {"cmd": [python, "-c", PROGRAM]}, until_text="task_id"
    )
    assert "task_id" in started
    connection: list[socket.socket] = []

    def connected() -> bool:
        try:
            connection.append(socket.create_connection((str(status.address), 7000), timeout=20))
        except OSError:
            return False
        return True

    await until(connected)
    peer = Peer(connection[0])
    try:
        yield peer
    finally:
        peer.close()


async def request(
    node: Node, method: str, path: str, body: object = None, *, until_text: str = ""
) -> str:
    """One call of the runtime API; a stream is read until it holds `until_text`."""
    address = str(node.host.network.address(MACHINE))
    content = json.dumps(body).encode() if body is not None else b""
    reader, writer = await asyncio.open_connection(address, 9990)
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    text = b""
    try:
        async with asyncio.timeout(20):
            while chunk := await reader.read(65536):
                text += chunk
                if until_text and until_text.encode() in text:
                    break
    finally:
        writer.close()
    return text.decode(errors="replace")


async def test_processes_connections_and_files_come_back(node: Node) -> None:
    """Stopped with a snapshot and restored: heap, threads, TCP, deleted file, watch, log, clock."""
    async with busy(node) as peer:
        before = await asyncio.to_thread(peer.ask, "one")
        stopped = await node.captures.take(MACHINE, SnapshotAfter.STOP)
        assert stopped.state is MachineState.STOPPED
        assert stopped.snapshot is not None
        assert stopped.exit is not None
        assert stopped.exit.requested
        restored = await node.captures.bring_back(SPEC)
        assert restored.state is MachineState.RUNNING
        assert restored.address == stopped.address
        assert restored.boot_id not in {None, stopped.boot_id}
        assert {"disk", "rootfs", "memory", "network", "agent", "total"} == set(restored.timings)
        made = await shell(node.host, MACHINE, "touch /root/watched/new; cat /root/log")
        assert made.output == "one"
        after = await asyncio.to_thread(peer.ask, "two")
        assert after[1] == before[1], "the heap is another"
        assert all(now > then for now, then in zip(after[2], before[2], strict=True))
        assert after[3:5] == ("kept", b"kept too")
        assert after[5] > 0, "the watch was lost"
        assert after[6] > before[6], "the clock went back"
        assert (await shell(node.host, MACHINE, "cat /root/log")).output == "one\ntwo"


async def test_the_agent_is_out_of_reach_until_it_has_its_new_tokens(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the agent that came back still takes its former tokens, nobody can hand it one."""
    await node.fleet.create(SPEC)
    await node.power.start(SPEC)
    await node.captures.take(MACHINE, SnapshotAfter.STOP)
    reached: list[str] = []

    async def told(address: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address, 9990)
        reached.append(address)
        await tell(address, *arguments, **options)

    monkeypatch.setattr(renewal, "tell", told)
    restored = await node.captures.bring_back(SPEC)
    assert reached == [restored.address]
    assert "tasks" in await request(node, "GET", "/exec")


async def test_a_snapshot_leaves_the_machine_running(node: Node) -> None:
    """By default it goes on with everything, and a restore later brings back that moment."""
    async with busy(node) as peer:
        await asyncio.to_thread(peer.ask, "one")
        status = await node.captures.take(MACHINE, None)
        assert status.state is MachineState.RUNNING
        assert (await asyncio.to_thread(peer.ask, "two"))[0] == "two"
        tasks = await request(node, "GET", "/exec")
        await node.captures.bring_back(SPEC)
        assert (await shell(node.host, MACHINE, "cat /root/log")).output == "one"
        again = await request(node, "GET", "/exec")
        assert tasks.count('"running"') == again.count('"running"') == 1


async def test_paused_afterwards_and_of_a_paused_machine(node: Node) -> None:
    """`paused` leaves it frozen; a paused one can be captured and stays so without `after`."""
    await node.fleet.create(SPEC)
    await node.power.start(SPEC)
    assert (await node.captures.take(MACHINE, SnapshotAfter.PAUSED)).state is MachineState.PAUSED
    again = await node.captures.take(MACHINE, None)
    assert again.state is MachineState.PAUSED
    assert (await node.captures.take(MACHINE, SnapshotAfter.RESUME)).state is MachineState.RUNNING
    assert (await shell(node.host, MACHINE, "echo alive")).output == "alive"
    places = list((node.host.snapshots.directory / MACHINE).iterdir())
    assert len(places) == 2, "only the last one is kept"


async def test_terminals_and_their_programs_come_back(node: Node) -> None:
    """A terminal keeps its program and its text, and takes input again."""
    await node.fleet.create(SPEC)
    await node.power.start(SPEC)
    command = ["/bin/sh", "-c", "echo begun; read x; echo got-$x; sleep 1000"]
    made = await request(node, "POST", "/terminals", {"cmd": command})
    assert '"alive":true' in made
    await node.captures.take(MACHINE, SnapshotAfter.STOP)
    await node.captures.bring_back(SPEC)
    assert '"alive":true' in await request(node, "GET", "/terminals/1")
    shown = await shell(node.host, MACHINE, "echo word > /dev/pts/0; ls /dev/pts")
    assert shown.code == 0


async def test_restored_after_the_machine_was_deleted_and_the_node_restarted(host: Host) -> None:
    """The snapshot outlives machine, disk and node, with ids and address held for it."""
    async with opened_node(host) as node:
        await node.fleet.create(SPEC)
        first = await node.power.start(SPEC)
        await shell(
            host,
            MACHINE,
            "echo kept > /root/file; sleep 1000 > /dev/null 2>&1 & echo $! > /root/pid",
        )
        await node.captures.take(MACHINE, None)
        await node.fleet.delete(MACHINE, keep_snapshot=True)
        assert not host.disks.exists(MACHINE)
    fresh = await restarted(host)
    async with opened_node(fresh) as node:
        assert node.captures.get(MACHINE).address == first.address
        other = await node.fleet.create(spec(2))
        assert other.address != first.address
        restored = await node.captures.bring_back(SPEC)
        assert restored.address == first.address
        found = await shell(fresh, MACHINE, "cat /root/file; kill -0 $(cat /root/pid) && echo runs")
        assert found.output == "kept\nruns"
        ended = await node.power.stop(MACHINE, 5)
        assert ended.exit is not None
        assert ended.exit.code == 0
        started = await node.power.start(SPEC)
        assert started.snapshot is not None
        await node.fleet.delete(MACHINE)
        with pytest.raises(NotFound):
            node.captures.get(MACHINE)
        with pytest.raises(NoSnapshot, match="take one"):
            await node.captures.bring_back(SPEC)
    assert not (fresh.snapshots.directory / MACHINE).exists()


async def test_a_failing_criu_leaves_everything_as_it_was(node: Node, tmp_path: Path) -> None:
    """The machine runs on, its last snapshot stays, and the reason is told."""
    async with busy(node) as peer:
        await node.captures.take(MACHINE, None)
        last = node.captures.get(MACHINE)
        wrong = tmp_path / "criu"
        wrong.write_text("#!/bin/sh\nexit 1\n")
        wrong.chmod(0o755)
        program, node.host.criu.program = node.host.criu.program, wrong
        for after in (None, SnapshotAfter.STOP):
            with pytest.raises(BootFailed, match="cannot be captured"):
                await node.captures.take(MACHINE, after)
            assert node.fleet.status(MACHINE).state is MachineState.RUNNING
            assert (await asyncio.to_thread(peer.ask, "on"))[0] == "on"
        with pytest.raises(BootFailed, match="cannot be restored"):
            await node.captures.bring_back(SPEC)
        node.host.criu.program = program
        assert node.captures.get(MACHINE) == last
        assert len(list((node.host.snapshots.directory / MACHINE).iterdir())) == 2
        told = node.fleet.status(MACHINE)
        assert told.state is MachineState.STOPPED
        assert told.exit is not None
        assert told.exit.requested
        assert "the restore failed: the memory cannot be restored" in (told.exit.reason or "")
    started = await node.power.start(SPEC)
    assert started.state is MachineState.RUNNING
    assert (await shell(node.host, MACHINE, "cat /root/log")).output == "on\non", "disk rolled back"


async def test_what_its_owner_can_mend_is_a_conflict(node: Node) -> None:
    """A large file that was deleted while open: told with what to do, and all goes on."""
    node.host.criu.config.write_text("ghost-limit 1048576\n")
    await node.fleet.create(SPEC)
    await node.power.start(SPEC)
    command = {"cmd": ["sh", "-c", "exec 3>gone; rm gone; head -c 4M /dev/zero >&3; sleep 600"]}
    await request(node, "POST", "/exec/stream", command, until_text="task_id")
    use = "stat -L -c %s /proc/[0-9]*/fd/3 2>/dev/null | grep -qx 4194304"
    async with asyncio.timeout(20):
        while (await shell(node.host, MACHINE, use)).code != 0:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    with pytest.raises(Conflict, match="a large file that was deleted; stop it"):
        await node.captures.take(MACHINE, None)
    assert node.fleet.status(MACHINE).state is MachineState.RUNNING


async def test_memory_that_does_not_fit_is_told_before_anything_ends(node: Node) -> None:
    """With less memory than the snapshot holds it is refused, and what runs goes on."""
    hold = "import time; held = bytearray(b'x') * (160 << 20); time.sleep(600)"
    large = SPEC.model_copy(update={"resources": SIZES.model_copy(update={"memory_mb": 256})})
    small = SPEC.model_copy(update={"resources": SIZES.model_copy(update={"memory_mb": 128})})
    await node.fleet.create(large)
    await node.power.start(large)
    command = {"cmd": ["/.bastide/bin/python3.11", "-c", hold]}
    assert "task_id" in await request(node, "POST", "/exec/stream", command, until_text="task_id")
    async with asyncio.timeout(20):
        while (await node.fleet.stats(MACHINE)).memory_bytes < 160 << 20:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.02)
    await node.captures.take(MACHINE, SnapshotAfter.STOP)
    boot = (await node.power.start(small)).boot_id
    with pytest.raises(Conflict, match="give it 256 MiB"):
        await node.captures.bring_back(small)
    status = node.fleet.status(MACHINE)
    assert (status.state, status.boot_id) == (MachineState.RUNNING, boot)
    assert (await node.captures.bring_back(large)).state is MachineState.RUNNING


async def test_a_full_host_leaves_everything_as_it_was(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room nothing is begun, and a copy that does not fit leaves nothing."""
    await node.fleet.create(SPEC)
    await node.power.start(SPEC)
    with monkeypatch.context() as patched:
        patched.setattr("bastide.node.disks.RESERVE_BYTES", 2**60)
        with pytest.raises(NoSpace, match="MiB are free"):
            await node.captures.take(MACHINE, None)
    with monkeypatch.context() as patched:
        patched.setattr("bastide.node.reflink.copy", _no_room)
        with pytest.raises(NoSpace, match="no room"):
            await node.captures.take(MACHINE, SnapshotAfter.STOP)
    assert node.fleet.status(MACHINE).state is MachineState.RUNNING
    assert not list(node.host.snapshots.directory.glob("ws_*"))
    assert (
        await shell(node.host, MACHINE, "echo x > /root/x && sync && cat /root/x")
    ).output == "x"


def _no_room(source: Path, target: Path) -> bool:
    raise OSError(28, "No space left on device")


async def test_host_ids_of_others_are_never_taken(node: Node) -> None:
    """A machine whose host ids changed is not given a memory that holds the old ones."""
    await node.fleet.create(SPEC)
    await node.power.start(SPEC)
    await node.captures.take(MACHINE, SnapshotAfter.STOP)
    entry = node.fleet.entry(MACHINE)
    first = entry.record.first_id
    await node.fleet.note(entry, first_id=first + 65536)
    with pytest.raises(Conflict, match="host ids"):
        await node.captures.bring_back(SPEC)
    await node.fleet.note(entry, first_id=first)
    assert (await node.captures.bring_back(SPEC)).state is MachineState.RUNNING


async def test_a_node_that_dies_in_a_snapshot_leaves_the_machine(host: Host) -> None:
    """Half a snapshot goes at the next start; a disk that was held still is let go."""
    first = Node(host)
    await first.open()
    await first.fleet.create(SPEC)
    await first.power.start(SPEC)
    half = host.snapshots.directory / MACHINE / "half" / "memory"
    half.mkdir(parents=True)
    disk = host.machines_dir / MACHINE / "disk"
    await asyncio.to_thread(kernel.freeze, disk)
    await first.close()
    async with opened_node(await restarted(host)) as node:
        assert not half.exists()
        written = await shell(node.host, MACHINE, "echo x > /root/x && sync && cat /root/x")
        assert written.output == "x"


async def test_without_criu_it_is_refused_with_the_reason(host: Host) -> None:
    """Capabilities and the call say that criu is missing; the machine runs on."""
    missing = Criu(Path("/nonexistent/criu"), host.criu.config, host.runc)
    async with opened_node(replace(host, criu=missing)) as node:
        able = node.capabilities()
        assert not able.snapshot
        assert "bastide prepare" in str(able.snapshot_unavailable_reason)
        await node.fleet.create(SPEC)
        await node.power.start(SPEC)
        with pytest.raises(Unsupported, match="bastide prepare"):
            await node.captures.take(MACHINE, None)
        assert node.fleet.status(MACHINE).state is MachineState.RUNNING


async def test_the_rehearsal_proves_it_and_leaves_nothing(host: Host) -> None:
    """A node that never tried tries with a machine of its own; the proof is kept."""
    cache = host.settings.state_dir / "runtime" / "rehearsals.json"
    async with opened_node(host) as node:
        able = node.capabilities()
        assert (able.snapshot, able.snapshot_unavailable_reason) == (True, None)
        assert not node.fleet.known
        assert json.loads(cache.read_text())
        assert not list(host.disks.directory.glob("*"))


async def test_a_rehearsal_that_fails_is_told(host: Host, tmp_path: Path) -> None:
    """With a criu that cannot, there are no snapshots, and the doctor says why until there are."""
    settings, good = host.settings, host.criu.program
    runtime = settings.state_dir / "runtime"
    shared = runtime.resolve()
    runtime.unlink()
    runtime.mkdir()
    for path in shared.iterdir():
        if not path.name.startswith("rehearsal"):  # it has never been tried here
            (runtime / path.name).symlink_to(path)
    host.criu.program = tmp_path / "criu"
    host.criu.program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo Version: 99.0\nexit 1\n'
    )
    host.criu.program.chmod(0o755)
    async with opened_node(host) as node:
        able = node.capabilities()
        assert not able.snapshot
        reason = able.snapshot_unavailable_reason or ""
        assert "a trial failed: the memory cannot be captured" in reason
    found = storage.snapshots(settings)
    assert found.level == "warn"
    assert reason in found.says
    host.criu.program = good
    async with opened_node(replace(host, network=Network(settings))) as node:
        assert node.capabilities().snapshot
    assert storage.snapshots(settings).level == "ok"
