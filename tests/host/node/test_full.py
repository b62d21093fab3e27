"""A host whose storage is full: whoever asks is told, nothing is half-made, the rest goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.host.node.conftest import spec
from tests.host.node.inside import shell

from bastide.domain.machine import MachineState, Resources
from bastide.node import kernel, loop
from bastide.node.errors import NoSpace
from bastide.node.node import Node
from bastide.settings import Settings

pytestmark = pytest.mark.host

MIB = 1024 * 1024
ROOM = 320 * MIB
FULL = r"(?i)no space|room"
FIRST, SECOND, THIRD = spec(1), spec(2), spec(3)
LARGER = SECOND.model_copy(
    update={"resources": Resources(cpus=1, memory_mb=128, disk_mb=4096, pids=64)}
)


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Disks, snapshots and records lie on a file system of their own, with room for few."""
    monkeypatch.setattr("bastide.node.disks.RESERVE_BYTES", 0)
    file, point = settings.state_dir / "small.ext4", settings.state_dir / "small"
    with file.open("wb") as small:
        small.truncate(ROOM)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(file)], check=True)
    point.mkdir()
    with loop.attached(file) as device:
        kernel.mount(device, point, "ext4", 0, "")
    for name in ("disks", "snapshots", "machines"):
        (point / name).mkdir()
        (settings.state_dir / name).symlink_to(point / name)
    yield settings
    kernel.unmount_all(point)


def fill(settings: Settings) -> Path:
    """Take all the room there is, to the last block; the file that has it."""
    file = settings.state_dir / "small" / "filler"
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
        await node.fleet.start(each)
    await shell(
        node.host, FIRST.id, "echo before > /root/file; head -c 8M /dev/urandom > /root/big; sync"
    )
    await node.captures.take(FIRST.id, None)
    last, boot = node.captures.get(FIRST.id), node.fleet.status(FIRST.id).boot_id
    filler = fill(settings)

    with pytest.raises((NoSpace, OSError), match=FULL):
        await node.fleet.create(THIRD)
    assert THIRD.id not in node.fleet.known
    assert node.host.network.address(THIRD.id) is None
    assert not list((settings.state_dir / "small").glob(f"*/*{THIRD.id}*"))

    for left in (0, MIB):  # nothing can be begun; or begun and not ended
        os.truncate(filler, filler.stat().st_size - left)
        with pytest.raises((NoSpace, OSError), match=FULL):
            await node.captures.take(FIRST.id, None)
        assert node.captures.get(FIRST.id) == last
        assert len(list((settings.state_dir / "snapshots" / FIRST.id).iterdir())) == 2
        with pytest.raises((NoSpace, OSError), match=FULL):
            await node.captures.bring_back(FIRST)
        assert node.fleet.status(FIRST.id).boot_id == boot
        assert node.fleet.status(FIRST.id).state is MachineState.RUNNING
        assert not list((settings.state_dir / "disks").glob(".ws_*"))

    for each in (FIRST, SECOND):  # and those that run go on
        assert (await shell(node.host, each.id, "cat /etc/hostname && pwd")).code == 0
    assert (await shell(node.host, FIRST.id, "cat /root/file")).output == "before"

    await node.fleet.stop(SECOND.id, 5)
    filler = fill(settings)
    with pytest.raises((NoSpace, OSError), match=FULL):
        await node.fleet.start(LARGER)
    filler.unlink()
    assert (await node.fleet.start(LARGER)).state is MachineState.RUNNING
    size = int((await shell(node.host, SECOND.id, "df -Pm / | awk 'END {print $2}'")).output)
    assert size > 3000
    await node.fleet.create(THIRD)
    await node.captures.take(FIRST.id, None)
    await shell(node.host, FIRST.id, "echo after > /root/file; sync")
    await node.captures.bring_back(FIRST)
    assert (await shell(node.host, FIRST.id, "cat /root/file")).output == "before"
