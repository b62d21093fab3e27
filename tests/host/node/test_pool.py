"""The pool: disks and snapshots whose blocks are shared, on a host that has no shared blocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.host.node.conftest import opened_node, spec
from tests.host.node.inside import shell

from bastide.node import kernel, loop, reflink
from bastide.node.errors import NoSpace, NotReady
from bastide.node.machines.host import Host
from bastide.node.pool import Pool
from bastide.settings import Settings, Storage

pytestmark = pytest.mark.host

MIB = 1024 * 1024
MACHINE = spec().id


@pytest.fixture
def settings(settings: Settings) -> Iterator[Settings]:
    """With a pool of 2 GiB, which is unmounted after the test."""
    changed = settings.model_copy(update={"storage": Storage(pool=2048)})
    yield changed
    kernel.unmount_all(changed.state_dir / "pool")


def test_it_is_made_once_and_found_again(settings: Settings) -> None:
    """Files in it share their blocks; a second node finds it; a larger setting makes it larger."""
    pool = Pool.of(settings)
    point = pool.open()
    assert point == pool.point
    assert pool.open() == point
    assert reflink.supported(point)
    assert point.stat().st_mode & 0o777 == 0o700
    assert pool.file.stat().st_blocks * 512 < 200 * MIB, "it is not sparse"
    (point / "a").write_bytes(os.urandom(MIB))
    assert reflink.copy(point / "a", point / "b")
    assert (point / "a").read_bytes() == (point / "b").read_bytes()
    with pytest.raises(FileExistsError):
        reflink.copy(point / "a", point / "b")
    before = os.statvfs(point).f_blocks
    larger = Pool(pool.state_dir, 3072)
    assert larger.open() == point
    assert os.statvfs(point).f_blocks > before * 1.3
    kernel.unmount_all(point)
    assert not pool.mounted
    assert Pool(pool.state_dir, "off").open() == point, "disks may lie in it"
    assert (point / "b").stat().st_size == MIB


def test_without_the_wish_or_the_room_there_is_none(tmp_path: Path) -> None:
    """`off` makes nothing; a size that does not fit and a broken file are told."""
    assert Pool(tmp_path, "off").open() is None
    assert not list(tmp_path.iterdir())
    with pytest.raises(NoSpace):
        Pool(tmp_path, 100).open()
    (tmp_path / "pool.xfs").write_bytes(b"nothing")
    with pytest.raises(NotReady, match="cannot be mounted"):
        Pool(tmp_path, "auto").open()


async def test_disks_move_into_it_when_their_machine_starts(host: Host) -> None:
    """A disk from before lies in the pool after the next boot, with all that was on it."""
    host.network.reserve(MACHINE)
    host.disks.create(MACHINE, 128)
    old = host.disks.path(MACHINE)
    assert old.parent == host.settings.state_dir.resolve() / "disks"
    async with opened_node(host) as node:
        await node.fleet.create(spec())
        assert host.disks.path(MACHINE) == old
        await node.power.start(spec())
        assert host.disks.path(MACHINE).is_relative_to(Pool.of(host.settings).point)
        assert not old.exists()
        assert (await shell(host, MACHINE, "echo x > /root/x && sync && cat /root/x")).output == "x"
        await node.captures.take(MACHINE, None)
        record = host.snapshots.get(MACHINE)
        assert record is not None
        copy = host.snapshots.place(record).disk
        assert copy.is_relative_to(Pool.of(host.settings).point)
        await node.captures.bring_back(spec())
        assert (await shell(host, MACHINE, "cat /root/x")).output == "x"
        await node.fleet.delete(MACHINE)
    assert host.disks.all() == []
    pool = Pool.of(host.settings)
    assert list(loop.devices(host.settings.state_dir.resolve()).values()) == [pool.file]
    # what the test found on the host before must be what is there after it
    await asyncio.to_thread(kernel.unmount_all, pool.point)
