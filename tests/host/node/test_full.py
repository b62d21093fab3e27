"""A host whose storage is full: whoever asks is told, nothing is half-made, the rest goes on."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.host.node.conftest import opened_node, spec
from tests.host.node.inside import Done, shell
from tests.host.node.waiting import until

from bastide.domain.machine import MachineSpec, MachineState, Resources
from bastide.node import kernel, loop
from bastide.node.errors import NoSpace
from bastide.node.machines.host import Host
from bastide.node.mounts import read_only
from bastide.node.node import Node
from bastide.node.shortage import BROKEN, HELD
from bastide.settings import Settings, Storage

pytestmark = pytest.mark.host

MIB = 1024 * 1024
ROOM = 512 * MIB
FULL = r"(?i)no space|room"
FIRST, SECOND, THIRD = spec(1), spec(2), spec(3)
LARGER = SECOND.model_copy(
    update={"resources": Resources(cpus=1, memory_mb=128, disk_mb=4096, pids=64)}
)


@pytest.fixture
def pooled() -> bool:
    """Whether disks lie in a pool; to be parametrized."""
    return False


@pytest.fixture
def settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *, pooled: bool
) -> Iterator[Settings]:
    """Disks, snapshots and records lie on a file system of their own, with room for few."""
    monkeypatch.setattr("bastide.node.disks.RESERVE_BYTES", 0)
    monkeypatch.setattr("bastide.node.shortage.LEAST_BYTES", 0)
    monkeypatch.setattr("bastide.node.node.REFRESH_SECONDS", 0.2)
    file, point = settings.state_dir / "small.ext4", settings.state_dir / "small"
    with file.open("wb") as small:
        small.truncate(ROOM)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(file)], check=True)
    point.mkdir()
    with loop.attached(file) as device:
        kernel.mount(device, point, "ext4", 0, "")
    for name in ("runtime", "bundle"):
        (point / name).symlink_to(settings.state_dir / name)
    (point / "images").mkdir()
    bind = ["mount", "--bind", str(settings.state_dir / "images"), str(point / "images")]
    subprocess.run(bind, check=True)
    storage = Storage(pool=1024 if pooled else "off")
    yield settings.model_copy(update={"state_dir": point, "storage": storage})
    for mount in (point / "pool", point / "images", point):
        kernel.unmount_all(mount)


@pytest.fixture
async def node(host: Host) -> AsyncIterator[Node]:
    """An open node, whose pool goes with it."""
    async with opened_node(host) as opened:
        yield opened
    kernel.unmount_all(host.settings.state_dir / "pool")


def fill(settings: Settings) -> Path:
    """Take all the room there is, to the last block; the file that has it."""
    file = settings.state_dir / "filler"
    with file.open("wb", buffering=0) as filler:
        while free := os.statvfs(file).f_bavail * os.statvfs(file).f_frsize:
            try:
                os.posix_fallocate(filler.fileno(), filler.seek(0, os.SEEK_END), free)
            except OSError:
                break
        filler.seek(0, os.SEEK_END)
        with suppress(OSError):
            while filler.write(bytes(4096)):
                os.fsync(filler.fileno())
    assert os.statvfs(file).f_bavail == 0
    return file


async def test_a_full_file_system_breaks_nothing(node: Node, settings: Settings) -> None:
    """Creating, snapshotting, restoring and growing fail with a sentence; later all of it works."""
    if node.capabilities().snapshot_unavailable_reason:
        pytest.skip("no snapshots on this host")
    for each in (FIRST, SECOND):
        await node.fleet.create(each)
        await node.power.start(each)
    await shell(
        node.host, FIRST.id, "echo before > /root/file; head -c 8M /dev/urandom > /root/big; sync"
    )
    await node.captures.take(FIRST.id, None)
    last, boot = node.captures.get(FIRST.id), node.fleet.status(FIRST.id).boot_id
    filler = fill(settings)

    with pytest.raises(NoSpace, match=FULL):
        await node.fleet.create(THIRD)
    assert THIRD.id not in node.fleet.known
    assert node.host.network.address(THIRD.id) is None
    assert not list(settings.state_dir.glob(f"[!i]*/*{THIRD.id}*"))

    for left in (0, MIB):  # nothing can be begun; or begun and not ended
        os.truncate(filler, filler.stat().st_size - left)
        with pytest.raises(NoSpace, match=FULL):
            await node.captures.take(FIRST.id, None)
        assert node.captures.get(FIRST.id) == last
        assert len(list((settings.state_dir / "snapshots" / FIRST.id).iterdir())) == 2
        with pytest.raises(NoSpace, match=FULL):
            await node.captures.bring_back(FIRST)
        assert node.fleet.status(FIRST.id).boot_id == boot
        assert node.fleet.status(FIRST.id).state is MachineState.RUNNING
        assert not list((settings.state_dir / "disks").glob(".ws_*"))

    for each in (FIRST, SECOND):  # and those that run go on
        assert (await shell(node.host, each.id, "cat /etc/hostname && pwd")).code == 0
    assert (await shell(node.host, FIRST.id, "cat /root/file")).output == "before"

    await node.power.stop(SECOND.id, 5)
    filler = fill(settings)
    with pytest.raises(NoSpace, match=FULL):
        await node.power.start(LARGER)
    filler.unlink()
    assert (await node.power.start(LARGER)).state is MachineState.RUNNING
    size = int((await shell(node.host, SECOND.id, "df -Pm / | awk 'END {print $2}'")).output)
    assert size > 3000
    await node.fleet.create(THIRD)
    await node.captures.take(FIRST.id, None)
    await shell(node.host, FIRST.id, "echo after > /root/file; sync")
    await node.captures.bring_back(FIRST)
    assert (await shell(node.host, FIRST.id, "cat /root/file")).output == "before"


async def write(node: Node, machine: str, mebibytes: int = 4) -> Done:
    """Write a file and have it on the disk."""
    line = f"dd if=/dev/urandom of=/root/more bs=1M count={mebibytes} conv=fsync 2>&1"
    return await shell(node.host, machine, line)


@pytest.mark.parametrize("pooled", [False, True])
async def test_writers_are_held_before_the_host_is_full(
    node: Node, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told "no space", nothing breaks, and they go on by themselves once there is room."""
    boots = {each.id: await begin(node, each) for each in (FIRST, SECOND)}
    filler = settings.state_dir / "filler"
    free = os.statvfs(settings.state_dir).f_bavail * os.statvfs(settings.state_dir).f_frsize
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - 48 * MIB)
    monkeypatch.setattr("bastide.node.shortage.LEAST_BYTES", 64 * MIB)
    monkeypatch.setattr("bastide.node.shortage.ENOUGH_BYTES", 128 * MIB)
    await until(lambda: all(node.fleet.status(each).error == HELD for each in boots))
    for each in boots:
        told = await write(node, each)
        assert told.code != 0
        assert "No space" in told.output
        assert (await shell(node.host, each, "cat /root/file")).output == "before"
    filler.unlink()
    await until(lambda: not any(node.fleet.status(each).error for each in boots))
    for each, boot in boots.items():
        assert (await write(node, each)).code == 0
        assert node.fleet.status(each).boot_id == boot
    assert read_only(node.host.machines_dir, "ext4") == []


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_host_that_somebody_else_fills_to_its_last_block(
    node: Node, settings: Settings
) -> None:
    """Whoever wrote then writes on, or is told to restart and has all that was synced."""
    boots = {each.id: await begin(node, each) for each in (FIRST, SECOND)}
    filler = fill(settings)
    for each in boots:
        assert (await write(node, each)).code != 0
        await shell(node.host, each, "mkdir -p /root/many/$(seq -s / 40); sync /root")
        assert (await shell(node.host, each, "cat /root/file")).output == "before"
    filler.unlink()
    with tempfile.TemporaryFile(dir=node.host.disks.directory) as file:  # the pool is there as well
        file.write(bytes(MIB))
        file.flush()
        os.fsync(file.fileno())
    for machine in (FIRST, SECOND):
        await write_on(node, machine)
        assert (await shell(node.host, machine.id, "cat /root/file")).output == "before"


async def write_on(node: Node, machine: MachineSpec) -> None:
    """Write as before, by itself or after the restart that its status asks for."""
    if (await write(node, machine.id)).code != 0:
        await until(lambda: node.fleet.status(machine.id).error == BROKEN)
        await node.power.stop(machine.id, 5)
        status = await node.power.start(machine)
        assert (status.state, status.error) == (MachineState.RUNNING, None)
        assert (await write(node, machine.id)).code == 0


async def begin(node: Node, each: MachineSpec) -> str | None:
    """Boot a machine with something on its disk; the boot's id."""
    await node.fleet.create(each)
    status = await node.power.start(each)
    line = "echo before > /root/file; sync /root/file"
    assert (await shell(node.host, each.id, line)).code == 0
    return status.boot_id
