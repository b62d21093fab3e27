"""Layout checks, cgroup readers, mount lists, images and disks: on plain files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bastide.domain.image import RECIPES, ImageManifest, ImageWords, describe, recipe
from bastide.node import cgroups
from bastide.node.errors import BootFailed, ImageUnavailable, Invalid
from bastide.node.images import Images
from bastide.node.images.packing import read_manifest
from bastide.node.layout import MOUNT_POINTS, check_image, check_layout
from bastide.node.machines.bundle import read_once
from bastide.prepare.archive import Archive

DIGEST = "d" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in MOUNT_POINTS:
        (tmp_path / name).mkdir()
    return tmp_path


def test_a_good_layout_passes(root: Path) -> None:
    """Real directories are what is wanted; a machine may also have lost one."""
    check_image(root)
    check_layout(root)
    (root / "sys").rmdir()
    check_layout(root)
    with pytest.raises(ImageUnavailable, match="/sys is missing"):
        check_image(root)


@pytest.mark.parametrize("name", MOUNT_POINTS)
@pytest.mark.parametrize("kind", ["absolute", "relative", "dangling", "loop", "file", "fifo"])
def test_anything_but_a_directory_is_refused(root: Path, name: str, kind: str) -> None:
    """Links of every kind, files and pipes at a mount point are refused in image and machine."""
    path = root / name
    path.rmdir()
    if kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        targets = {"absolute": "/tmp", "relative": "../..", "dangling": "no", "loop": name}
        path.symlink_to(targets[kind])
    with pytest.raises(ImageUnavailable, match=f"/{name} is"):
        check_image(root)
    with pytest.raises(BootFailed, match=f"/{name} is"):
        check_layout(root)


def test_a_root_that_is_a_link_is_refused(root: Path) -> None:
    """The root itself is not followed either."""
    link = root / "link"
    link.symlink_to(root)
    with pytest.raises(OSError, match=r"Not a directory|symbolic|Too many"):
        check_image(link)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_cgroup_v1(tmp_path: Path) -> None:
    """Counters of the v1 controllers, and the out-of-memory kills."""
    machine = "ws_00000001"
    for controller in ("cpu", "pids", "unified"):
        (tmp_path / controller / "b" / machine).mkdir(parents=True)
    write(tmp_path / "cpuacct/b" / machine / "cpuacct.usage", "2500000000\n")
    write(tmp_path / "memory/b" / machine / "memory.usage_in_bytes", "1000\n")
    write(tmp_path / "memory/b" / machine / "memory.stat", "cache 5\ntotal_inactive_file 300\n")
    write(tmp_path / "memory/b" / machine / "memory.oom_control", "under_oom 0\noom_kill 2\n")
    write(tmp_path / "pids/b" / machine / "pids.current", "7\n")
    found = cgroups.detect("b", tmp_path)
    assert isinstance(found, cgroups.CgroupsV1)
    assert found.usage(machine) == cgroups.Usage(2.5, 700, 7, 300)
    assert found.oom_kills(machine) == 2
    without = found.limits_cores
    write(tmp_path / "cpuset/cpuset.cpus", "0-3\n")
    write(tmp_path / "cpuset/b" / machine / "cpuset.cpus", "2\n")
    assert (without, found.limits_cores) == (False, True)
    assert found.cores(machine) == "2\n"
    assert found.oom_kills("ws_ffffffff") == 0
    assert found.known() == {machine}
    assert found.path(machine) == "/b/ws_00000001"
    with pytest.raises(OSError, match="No such file"):
        found.usage("ws_ffffffff")


def test_cgroup_v2(tmp_path: Path) -> None:
    """The same from the unified hierarchy, when it holds the memory controller."""
    machine = "ws_00000001"
    write(tmp_path / "cgroup.controllers", "cpu memory pids\n")
    directory = tmp_path / "b" / machine
    write(directory / "cpu.stat", "usage_usec 1500000\nuser_usec 1\n")
    write(directory / "memory.current", "5000\n")
    write(directory / "memory.stat", "anon 1\ninactive_file 1000\n")
    write(directory / "memory.events", "low 0\noom 1\noom_kill 1\n")
    write(directory / "pids.current", "3\n")
    write(directory / "cgroup.procs", "12\n34\n")
    found = cgroups.detect("b", tmp_path)
    assert isinstance(found, cgroups.CgroupsV2)
    assert found.usage(machine) == cgroups.Usage(1.5, 4000, 3, 1000)
    assert found.oom_kills(machine) == 1
    assert found.processes(machine) == {12, 34}
    without = found.limits_cores
    write(tmp_path / "cgroup.controllers", "cpu cpuset memory pids\n")
    write(directory / "cpuset.cpus", "0-1\n")
    assert (without, found.limits_cores) == (False, True)
    assert found.cores(machine) == "0-1\n"
    assert found.known() == {machine}


def test_cgroups_of_the_dead_are_removed(tmp_path: Path) -> None:
    """Nested ones first, in every hierarchy."""
    (tmp_path / "cpu/b/ws_00000001/inner/most").mkdir(parents=True)
    (tmp_path / "memory/b/ws_00000001").mkdir(parents=True)
    found = cgroups.CgroupsV1("b", tmp_path)
    assert found.remove("ws_00000001") == 4
    assert found.known() == set()
    found.remove_parent()
    assert list(tmp_path.glob("*/*")) == []


def manifest(**changes: object) -> ImageManifest:
    base = {"id": "debian-12", "key": "k", "digest": DIGEST, "size_bytes": 5}
    return ImageManifest.model_validate({**base, **changes})


def test_images_that_are_not_built_are_listed_as_such(tmp_path: Path) -> None:
    """The catalogue tells of every recipe; only built ones are ready."""
    images = Images(tmp_path)
    assert [(item.id, item.ready, item.buildable) for item in images.list()] == [
        (item.id, False, True) for item in RECIPES
    ]
    with pytest.raises(ImageUnavailable, match="script/up"):
        images.digest("debian-12")
    with pytest.raises(Invalid, match="debian-12"):
        images.digest("passwd")
    with pytest.raises(Invalid, match="no image"):
        images.digest("../../etc/passwd")


def test_built_images_are_ready(tmp_path: Path) -> None:
    """A manifest counts only together with its file; both names of an image work."""
    (tmp_path / "debian-12.json").write_text(manifest().model_dump_json())
    images = Images(tmp_path)
    assert not images.list()[0].ready
    assert read_manifest(tmp_path, "debian-12") is None
    (tmp_path / f"{DIGEST}.erofs").touch()
    assert images.list()[0].ready
    assert images.digest("debian-12") == images.digest("bastide/debian:12") == DIGEST
    assert read_manifest(tmp_path, "debian-12") == manifest()
    (tmp_path / "debian-12.json").write_text('{"digest": "../../x"}')
    assert not images.list()[0].ready


def test_an_image_may_bring_its_own_words(tmp_path: Path) -> None:
    """One that is of no recipe is listed beside them; it cannot pose as another."""
    words = ImageWords(
        id="own", image="example/own:1", label="Own", desc="", category="os",
        distribution="", version="", family="",
    )  # fmt: skip
    (tmp_path / f"{DIGEST}.erofs").touch()
    for name in ("own", "debian-12", "other"):
        own = manifest(id=name, words=words)
        (tmp_path / f"{name}.json").write_text(own.model_dump_json())
    images = Images(tmp_path, recipes=RECIPES[:1])
    assert [(item.id, item.label, item.ready) for item in images.list()] == [
        ("debian-12", "Debian 12", True),
        ("own", "Own", True),
    ]
    assert images.digest("example/own:1") == DIGEST


def test_a_bundle_is_read_once(tmp_path: Path) -> None:
    """Every file of it, and nothing a link points to."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a").write_bytes(bytes(3_000_000))
    (tmp_path / "b").write_bytes(b"xy")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert read_once(tmp_path) == 3_000_002


def test_recipes() -> None:
    """Ids and references are unique, and what changes an image changes its key."""
    assert len({item.id for item in RECIPES} | {item.image for item in RECIPES}) == 2 * len(RECIPES)
    debian = recipe("debian-12")
    assert debian is not None
    assert recipe("nothing") is None
    assert set(debian.packages) >= {"ca-certificates", "curl", "iproute2", "procps", "python3"}
    other = debian.model_copy(update={"packages": (*debian.packages, "git")})
    assert other.key != debian.key
    assert describe(debian, None, "broken").error == "broken"


def test_sources_are_of_the_hosts_archive() -> None:
    """A suite's lines name the archive the host uses, with updates and security fixes."""
    archive = Archive(main="http://mirror/debian/", security="http://mirror/security/")
    assert archive.sources("bookworm") == [
        "deb http://mirror/debian/ bookworm main",
        "deb http://mirror/debian/ bookworm-updates main",
        "deb http://mirror/security/ bookworm-security main",
    ]
    assert len(Archive(main="http://mirror/", security=None).sources("sid")) == 2
