"""Images and disks on the real kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.host.node.waiting import until

from bastide.domain.image import ImageRecipe
from bastide.node import kernel, loop
from bastide.node.disks import MIB, Disks
from bastide.node.errors import BootFailed, ImageUnavailable
from bastide.node.images import Images
from bastide.node.images.packing import pack
from bastide.node.layout import MOUNT_POINTS
from bastide.node.mounts import mounted
from bastide.prepare.image import normalise

pytestmark = pytest.mark.host

RECIPE = ImageRecipe(
    id="tiny",
    image="bastide/tiny:1",
    label="Tiny",
    desc="Nothing in it",
    category="os",
    suite="none",
    packages=(),
    distribution="none",
    version="1",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root file system with one file."""
    root = tmp_path / "tree"
    for name in MOUNT_POINTS:
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text("NAME=Tiny\n")
    return root


def test_an_image_is_packed_by_content_and_mounted_read_only(tree: Path, tmp_path: Path) -> None:
    """What went in comes out, under the digest of the file, and cannot be written to."""
    home = tmp_path / "images"
    home.mkdir()
    manifest = pack(tree, home, "tiny", RECIPE.key)
    images = Images(home, (RECIPE,))
    assert images.digest("bastide/tiny:1") == manifest.digest
    point = images.mount(manifest.digest)
    try:
        assert (point / "etc/os-release").read_text() == "NAME=Tiny\n"
        assert images.mount(manifest.digest) == point
        assert mounted(home) == [point]
        with pytest.raises(OSError, match="Read-only"):
            (point / "file").touch()
        listed = images.list()[0]
        assert listed.ready
        assert listed.size_bytes == (home / f"{manifest.digest}.erofs").stat().st_size
    finally:
        images.unmount()
    assert mounted(home) == []


@pytest.mark.parametrize("name", MOUNT_POINTS)
@pytest.mark.parametrize("target", ["/proc/sys", "../../..", "nowhere"])
def test_a_hostile_image_is_never_packed(
    tree: Path, tmp_path: Path, name: str, target: str
) -> None:
    """A symbolic link where something is mounted is refused, absolute, relative or dangling."""
    for path in (tree / name).iterdir():
        path.unlink()
    (tree / name).rmdir()
    (tree / name).symlink_to(target)
    with pytest.raises(ImageUnavailable, match=f"/{name} is a symbolic link"):
        pack(tree, tmp_path, "tiny", RECIPE.key)
    assert list(tmp_path.glob("*.erofs")) == []
    assert list(tmp_path.glob(".pack-*")) == []


def test_a_hostile_image_file_is_refused_when_mounted(tree: Path, tmp_path: Path) -> None:
    """An image that came ready-made is checked too, and stays unmounted."""
    manifest = pack(tree, tmp_path, "tiny", RECIPE.key)
    (tree / "dev").rmdir()
    (tree / "dev").symlink_to("/dev")
    file = tmp_path / f"{manifest.digest}.erofs"
    file.unlink()
    os.spawnlp(os.P_WAIT, "mkfs.erofs", "mkfs.erofs", "--quiet", str(file), str(tree))
    images = Images(tmp_path, (RECIPE,))
    for _ in range(2):
        with pytest.raises(ImageUnavailable, match="symbolic link"):
            images.mount(manifest.digest)
    assert mounted(tmp_path) == []
    assert "symbolic link" in (images.list()[0].error or "")


def test_normalising_follows_no_link(tree: Path, tmp_path: Path) -> None:
    """Cleaning a tree whose directories are links touches nothing outside of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (tree / "tmp").symlink_to(outside)
    with pytest.raises(ImageUnavailable, match="/tmp"):
        normalise(tree)
    assert (outside / "precious").exists()


def test_a_disk_is_sparse_and_of_its_size(tmp_path: Path) -> None:
    """A new disk costs the host a few MiB, whatever its size; making it twice changes nothing."""
    disks = Disks(tmp_path)
    disks.create("ws_00000001", 4096)
    file = disks.path("ws_00000001")
    before = file.stat()
    assert before.st_size == 4096 * MIB
    assert before.st_blocks * 512 < 16 * MIB
    assert before.st_mode & 0o777 == 0o600
    disks.create("ws_00000001", 4096)
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert disks.all() == ["ws_00000001"]
    assert disks.drafts() == []


def test_a_disk_is_never_mounted_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mounts of one file would destroy it: the second waits, then fails."""
    monkeypatch.setattr("bastide.node.disks._FREE_TIMEOUT", 0.05)
    disks = Disks(tmp_path / "disks")
    disks.create("ws_00000001", 64)
    disks.mount("ws_00000001", tmp_path / "one")
    try:
        with pytest.raises(BootFailed, match="still in use"):
            disks.mount("ws_00000001", tmp_path / "two")
    finally:
        disks.unmount(tmp_path / "one")
    disks.unmount(tmp_path / "one")
    assert loop.devices(tmp_path) == {}


def test_a_disk_grows_and_never_shrinks(tmp_path: Path) -> None:
    """Growing keeps what is on it; a smaller size is no order to shrink."""
    disks = Disks(tmp_path / "disks")
    disks.create("ws_00000001", 64)
    disks.mount("ws_00000001", tmp_path / "point")
    (tmp_path / "point/upper/file").write_text("kept")
    disks.unmount(tmp_path / "point")
    disks.grow("ws_00000001", 2048)
    disks.grow("ws_00000001", 128)
    disks.mount("ws_00000001", tmp_path / "point")
    try:
        numbers = os.statvfs(tmp_path / "point")
        assert numbers.f_blocks * numbers.f_frsize > 1900 * MIB
        assert (tmp_path / "point/upper/file").read_text() == "kept"
    finally:
        disks.unmount(tmp_path / "point")
    assert loop.devices(tmp_path) == {}


async def test_what_is_deleted_goes_back_to_the_host(tmp_path: Path) -> None:
    """Room on a disk is the host's again once its file is deleted; held room costs none."""
    disks, point = Disks(tmp_path / "disks"), tmp_path / "point"
    disks.create("ws_00000001", 1024)
    disks.mount("ws_00000001", point)
    file = disks.path("ws_00000001")
    try:
        before = taken(file, point)
        (point / "upper/file").write_bytes(os.urandom(32 * MIB))
        assert taken(file, point) > before + 31 * MIB
        (point / "upper/file").unlink()
        await until(lambda: taken(file, point) < before + 2 * MIB)
        free = os.statvfs(point).f_bavail
        disks.hold_room(point)
        assert os.statvfs(point).f_bavail * 4096 < MIB
        assert taken(file, point) < before + 4 * MIB
        disks.give_room(point)
        await until(lambda: os.statvfs(point).f_bavail > free - 100)
    finally:
        disks.unmount(point)


def taken(file: Path, point: Path) -> int:
    """Bytes a mounted disk takes on the host, all written out."""
    kernel.freeze(point)
    kernel.thaw(point)
    return file.stat().st_blocks * 512


def test_layers_that_are_links_are_not_followed(tmp_path: Path) -> None:
    """A disk on which `upper` is a link mounts, but no overlay is made over it."""
    disks = Disks(tmp_path / "disks")
    disks.create("ws_00000001", 64)
    point = tmp_path / "point"
    disks.mount("ws_00000001", point)
    (point / "upper").rmdir()
    (point / "upper").symlink_to("/etc")
    disks.unmount(point)
    disks.mount("ws_00000001", point)
    try:
        assert (point / "upper").is_symlink()
        with pytest.raises(OSError, match=r"Not a directory|symbolic"):
            os.open(point / "upper", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    finally:
        disks.unmount(point)
