"""Backups over the control port: what is kept, what is left out, and what comes back."""

from __future__ import annotations

import io
import os
import shutil
import socket
import stat
import struct
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.agent.conftest import Agent

MIB = 1024 * 1024
NOBODY = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)  # kind, rights, id
    for entry in ((1, 6, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY))
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory on the same file system as `/`: nothing else is backed up."""
    for base in (tempfile.gettempdir(), "/var/tmp", "/root"):
        if Path(base).stat().st_dev == Path("/").lstat().st_dev:
            made = Path(tempfile.mkdtemp(prefix="bastide-backup-", dir=base))
            yield made
            shutil.rmtree(made)
            return
    raise AssertionError("no directory of this host is on its root file system")


@pytest.fixture
def control(agent: Agent) -> Iterator[httpx.Client]:
    """A client of the control port."""
    with agent.control() as found:
        yield found


def archive(control: httpx.Client, *paths: Path | str, excludes: tuple[str, ...] = ()) -> bytes:
    """A backup of some paths."""
    body = {"paths": [str(path) for path in paths], "excludes": list(excludes)}
    answer = control.post("/control/archive", json=body)
    assert answer.status_code == 200, answer.text
    return answer.content


def unpack(control: httpx.Client, dest: Path, data: bytes) -> httpx.Response:
    """Put a backup into a directory."""
    return control.post("/control/unpack", params={"dest": str(dest)}, content=data)


def names(data: bytes) -> list[str]:
    """The members of a backup, as Python's own reader sees them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        return found.getnames()


def below(place: Path) -> str:
    """The path as it is in a backup."""
    return str(place).lstrip("/")


def test_everything_of_a_file_comes_back(control: httpx.Client, place: Path) -> None:
    """Owners, modes, times, both kinds of links, holes, attributes and set-id bits."""
    tree = place / "tree"
    (tree / "sub").mkdir(parents=True, mode=0o750)
    (tree / "file").write_bytes(b"content")
    os.chown(tree / "file", 1000, 1001)
    (tree / "file").chmod(0o4750)
    os.setxattr(tree / "file", "user.bastide", b"a\0b\nc=d")
    os.setxattr(tree / "sub", "user.of", b"a directory")
    (tree / "listed").write_bytes(b"")
    os.setxattr(tree / "listed", "system.posix_acl_access", ACL)
    os.link(tree / "file", tree / "sub" / "same")
    (tree / "link").symlink_to("nowhere/at all")
    os.chown(tree / "link", 7, 8, follow_symlinks=False)
    (tree / "empty").write_bytes(b"")
    (tree / ("n" * 150)).write_bytes(b"long")
    (tree / "ünï \n name").write_bytes(b"odd")
    with (tree / "sparse").open("wb") as file:
        file.truncate(3 * 1024 * MIB)
        file.seek(1024 * MIB)
        file.write(b"middle")
    os.utime(tree / "file", (1_500_000_000, 1_500_000_000))
    os.utime(tree / "sub", (1_400_000_000, 1_400_000_000))
    data = archive(control, tree)
    assert len(data) < MIB
    answer = unpack(control, place / "out", data)
    assert answer.json() == {"files_extracted": 8}
    back = place / "out" / below(tree)
    info = (back / "file").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (1000, 1001, 0o4750)
    assert info.st_mtime == 1_500_000_000
    assert info.st_ino == (back / "sub" / "same").stat().st_ino
    assert os.getxattr(back / "file", "user.bastide") == b"a\0b\nc=d"
    assert os.getxattr(back / "sub", "user.of") == b"a directory"
    assert os.getxattr(back / "listed", "system.posix_acl_access") == ACL
    assert (back / "sub").stat().st_mode & 0o777 == 0o750
    assert (back / "sub").stat().st_mtime == 1_400_000_000
    assert str((back / "link").readlink()) == "nowhere/at all"
    assert (back / "link").lstat().st_uid == 7
    assert (back / ("n" * 150)).read_bytes() == b"long"
    assert (back / "ünï \n name").read_bytes() == b"odd"
    sparse = (back / "sparse").stat()
    assert sparse.st_size == 3 * 1024 * MIB
    assert sparse.st_blocks * 512 < MIB
    with (back / "sparse").open("rb") as file:
        file.seek(1024 * MIB)
        assert file.read(6) == b"middle"


def test_python_reads_it(control: httpx.Client, place: Path) -> None:
    """A backup is an ordinary tar with paths from the root, and attributes as GNU tar has them."""
    (place / "file").write_bytes(b"x")
    os.setxattr(place / "file", "user.k", b"v")
    with tarfile.open(fileobj=io.BytesIO(archive(control, place / "file"))) as found:
        member = found.getmember(below(place / "file"))
        assert member.pax_headers["SCHILY.xattr.user.k"] == "v"


def test_directories_above_keep_their_owners(control: httpx.Client, place: Path) -> None:
    """A path deep in a tree brings the directories that lead to it, not what else is in them."""
    deep = place / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x")
    (place / "a" / "other").write_bytes(b"x")
    os.chown(place / "a", 5, 6)
    (place / "a").chmod(0o711)
    data = archive(control, deep, place / "a" / "b", deep / "file")
    assert names(data).count(below(deep / "file")) == 1
    assert below(place / "a" / "other") not in names(data)
    assert unpack(control, place / "out", data).status_code == 200
    info = (place / "out" / below(place / "a")).stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (5, 6, 0o711)


def test_excludes_are_places_or_names(control: httpx.Client, place: Path) -> None:
    """`/a` is one place; a name without a slash before it counts anywhere; globs work in both."""
    for name in ("keep/cache/x", "cache/x", "node_modules/x", "keep/node_modules/x", "keep/a.log"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"x")
    excludes = (f"{place}/cache", "node_modules", "*.log")
    found = names(archive(control, place, excludes=excludes))
    assert below(place / "keep" / "cache" / "x") in found
    assert not [name for name in found if name.endswith("a.log") or "node_modules" in name]
    assert below(place / "cache") not in found


def test_what_is_no_file_of_the_workspace_is_left_out(control: httpx.Client, place: Path) -> None:
    """Sockets, FIFOs and other file systems; asking for those alone is refused with the path."""
    os.mkfifo(place / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "socket"))
    (place / "file").write_bytes(b"x")
    found = names(archive(control, place))
    assert below(place / "file") in found
    assert below(place / "fifo") not in found
    assert below(place / "socket") not in found
    for path, status in (("/proc/version", 400), ("/proc", 400), (f"{place}/none", 404)):
        refused = control.post("/control/archive", json={"paths": [path]})
        assert refused.status_code == status
        assert path in refused.json()["message"]


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../x"])
def test_a_hostile_backup_stays_in_its_place(control: httpx.Client, place: Path, name: str) -> None:
    """Names that lead out of the destination are refused, and nothing is written there."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        info = tarfile.TarInfo(name)
        info.size = 1
        made.addfile(info, io.BytesIO(b"x"))
    refused = unpack(control, place / "dest", out.getvalue())
    assert refused.status_code == 400
    assert not (place / "out").exists()


def test_a_backup_that_ends_early_is_refused(control: httpx.Client, place: Path) -> None:
    """What was cut off is told; files that were complete stay."""
    (place / "a").write_bytes(b"x" * 5000)
    (place / "b").write_bytes(os.urandom(3 * MIB))
    data = archive(control, place / "a", place / "b")
    refused = unpack(control, place / "out", data[: 2 * MIB])
    assert refused.status_code == 400
    assert "incomplete" in refused.json()["message"]
    assert (place / "out" / below(place / "a")).read_bytes() == b"x" * 5000
    assert not (place / "out" / below(place / "b")).exists()


def test_restoring_replaces_files_and_keeps_others(control: httpx.Client, place: Path) -> None:
    """Files of the backup win over those that are there; what it does not have stays."""
    (place / "in").mkdir()
    (place / "in" / "file").write_bytes(b"old")
    data = archive(control, place / "in")
    back = place / "out" / below(place / "in")
    back.mkdir(parents=True)
    (back / "file").write_bytes(b"newer")
    (back / "mine").write_bytes(b"mine")
    assert unpack(control, place / "out", data).status_code == 200
    assert (back / "file").read_bytes() == b"old"
    assert (back / "mine").read_bytes() == b"mine"


def test_a_destination_is_on_the_disk(control: httpx.Client, place: Path) -> None:
    """What is on no disk, or is no directory, is refused as `dest`, wherever links lead."""
    (place / "file").write_bytes(b"x")
    (place / "link").symlink_to("/proc/sys")
    data = archive(control, place / "file")
    for dest, words in (
        (Path("/proc"), "not on the workspace's disk"),
        (Path("/sys/none/deep"), "not on the workspace's disk"),
        (place / "link", "not on the workspace's disk"),
        (place / "link" / "x", "not on the workspace's disk"),
        (place / "file", "must be a directory"),
        (place / "file" / "x", "must be a directory"),
    ):
        refused = unpack(control, dest, data)
        assert refused.status_code == 400, refused.text
        assert refused.json()["details"] == {"field": "dest"}
        assert words in refused.json()["message"]
    assert unpack(control, place / "new" / "deep", data).status_code == 200
    assert (place / "new" / "deep" / below(place / "file")).read_bytes() == b"x"


def test_the_runtime_port_has_none_of_it(http: httpx.Client) -> None:
    """Backups are the control plane's alone."""
    for path in ("/control/archive", "/control/unpack"):
        assert http.post(path, json={"paths": ["/"]}).status_code == 404


def test_skipped_is_not_restored_as_a_file(control: httpx.Client, place: Path) -> None:
    """The note of what could not be read is in the backup and not put back as a file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name in (".bastide-skipped", "file"):
            info = tarfile.TarInfo(name)
            info.size, info.mode = 1, stat.S_IRUSR
            made.addfile(info, io.BytesIO(b"x"))
    assert unpack(control, place / "out", out.getvalue()).json() == {"files_extracted": 1}
    assert [path.name for path in (place / "out").iterdir()] == ["file"]
