"""Uploading tar.gz (spec runtime 10): what is taken, what is refused, what stays untouched."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import socket
import struct
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.agent.conftest import DEADLINE, RUNTIME_TOKEN, Agent

URL = "/files/transfer/upload"
MIB = 1024 * 1024


def member(name: str, data: bytes = b"", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of an archive; `changes` are set on its header."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def pack(*entries: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar.gz of the entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=kind, compresslevel=1) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def upload(http: httpx.Client, dest: Path | str, data: bytes, **query: str) -> httpx.Response:
    """Send an archive."""
    headers = {"Content-Type": "application/gzip"}
    return http.post(URL, params={"dest": str(dest), **query}, content=data, headers=headers)


def refused(http: httpx.Client, dest: Path, data: bytes, status: int = 400) -> str:
    """The message of a refused upload."""
    answer = upload(http, dest, data)
    body = answer.json()
    assert answer.status_code == status, body
    assert body["success"] is False
    return str(body["message"])


def names(folder: Path) -> list[str]:
    """What is in a directory."""
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_with_gnu_tar(http: httpx.Client, tmp_path: Path) -> None:
    """A tree packed by GNU tar arrives with contents, modes, times and links."""
    tree = tmp_path / "in"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"x" * 300_000)
    (tree / "sub" / "file").chmod(0o640)
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    (tree / "link").symlink_to("sub/file")
    os.link(tree / "run", tree / "also")
    os.utime(tree / "sub" / "file", (1_500_000_000, 1_500_000_000))
    os.utime(tree / "sub", (1_400_000_000, 1_400_000_000))
    packed = subprocess.run(
        ["tar", "-czf", "-", "-C", str(tree), "."], check=True, capture_output=True
    ).stdout
    dest = tmp_path / "new" / "place"
    answer = upload(http, dest, packed)
    assert answer.json() == {"success": True, "dest": str(dest), "files_extracted": 4}
    assert (dest / "sub" / "file").read_bytes() == b"x" * 300_000
    assert (dest / "sub" / "file").stat().st_mode & 0o7777 == 0o640
    assert (dest / "sub" / "file").stat().st_mtime == 1_500_000_000
    assert (dest / "sub").stat().st_mtime == 1_400_000_000
    assert (dest / "link").readlink() == Path("sub/file")
    assert (dest / "run").samefile(dest / "also")
    again = upload(http, dest, packed)
    assert again.json()["files_extracted"] == 4
    assert not list(dest.rglob(".bastide-*"))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format(http: httpx.Client, tmp_path: Path, kind: int) -> None:
    """Prefixes of ustar, GNU long names and PAX records, gzip or plain."""
    long = "d" * 60 + "/" + "f" * 80
    entries = [member(long, b"long", mtime=1_600_000_000)]
    if kind != tarfile.USTAR_FORMAT:
        entries.append(member("n" * 200, b"200"))
        entries.append(member("ln", type=tarfile.SYMTYPE, linkname="t" * 180))
    packed = pack(*entries, kind=kind)
    for name, data in (("gz", packed), ("plain", gzip.decompress(packed))):
        answer = upload(http, tmp_path / name, data)
        assert answer.json()["files_extracted"] == len(entries)
        assert (tmp_path / name / long).read_bytes() == b"long"
        assert (tmp_path / name / long).stat().st_mtime == 1_600_000_000


def test_chunked_and_split_gzip(http: httpx.Client, tmp_path: Path) -> None:
    """No Content-Length, one byte at a time, gzip in several members: all taken."""
    raw = gzip.decompress(pack(member("a", b"A" * 1000), member("b", b"B" * 1000)))
    split = gzip.compress(raw[:700]) + gzip.compress(raw[700:]) + bytes(100)

    def bytewise() -> Iterator[bytes]:
        for position in range(len(split)):
            yield split[position : position + 1]

    answer = http.post(URL, params={"dest": str(tmp_path)}, content=bytewise())
    assert answer.json()["files_extracted"] == 2
    assert (tmp_path / "b").read_bytes() == b"B" * 1000


@pytest.mark.parametrize("options", [[], ["--format=posix", "--sparse-version=1.0"],
                                     ["--format=posix", "--sparse-version=0.1"],
                                     ["--format=posix", "--sparse-version=0.0"]])  # fmt: skip
def test_sparse_files(http: httpx.Client, tmp_path: Path, options: list[str]) -> None:
    """Every way GNU tar stores holes gives the file back, holes included."""
    size = 1024 * MIB
    with (tmp_path / "disk").open("wb") as file:
        for place in range(40):
            file.seek(place * 16 * MIB + 4096)
            file.write(b"%02d" % place * 2048)
        file.truncate(size)
    packed = subprocess.run(
        ["tar", "-cSf", "-", *options, "-C", str(tmp_path), "disk"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    assert len(packed) < MIB
    assert upload(http, tmp_path / "out", packed).json()["files_extracted"] == 1
    out = tmp_path / "out" / "disk"
    assert out.stat().st_size == size
    assert out.stat().st_blocks * 512 < 8 * MIB
    with out.open("rb") as file:
        for place in range(40):
            file.seek(place * 16 * MIB + 4096)
            assert file.read(4096) == b"%02d" % place * 2048


def test_nothing_leaves_the_destination(http: httpx.Client, tmp_path: Path) -> None:
    """Absolute names, `..`, links written through, hard links: all refused, nothing outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    attacks = {
        "absolute": pack(member(f"{outside}/evil", b"x")),
        "dots": pack(member("a/../../outside/evil", b"x")),
        "only dots": pack(member("../outside/evil", b"x")),
        "directory": pack(member("../outside/evil", type=tarfile.DIRTYPE)),
        "link": pack(
            member("way", type=tarfile.SYMTYPE, linkname=str(outside)), member("way/evil", b"x")
        ),
        "relative link": pack(
            member("way", type=tarfile.SYMTYPE, linkname="../outside"), member("way/evil", b"x")
        ),
        "link made directory": pack(
            member("way", type=tarfile.SYMTYPE, linkname="../outside"),
            member("way", type=tarfile.DIRTYPE, mode=0o777),
            member("way/evil", b"x"),
        ),
        "deep": pack(
            member("way", type=tarfile.SYMTYPE, linkname="../outside"),
            member("way/evil", type=tarfile.DIRTYPE),
        ),
        "hard": pack(member("evil", type=tarfile.LNKTYPE, linkname="../outside/secret")),
        "hard absolute": pack(
            member("evil", type=tarfile.LNKTYPE, linkname=str(outside / "secret"))
        ),
        "hard through link": pack(
            member("way", type=tarfile.SYMTYPE, linkname="../outside"),
            member("evil", type=tarfile.LNKTYPE, linkname="way/secret"),
        ),
    }
    for name, data in attacks.items():
        dest = tmp_path / name
        refused(http, dest, data)
        assert names(outside) == ["secret"], name
        assert not (dest / "evil").exists(), name
    assert (outside / "secret").stat().st_nlink == 1


def test_file_in_place_of_a_link_is_not_written_through(http: httpx.Client, tmp_path: Path) -> None:
    """A member named as a symlink replaces the link; a hard link's other name keeps its bytes."""
    (tmp_path / "victim").write_text("keep")
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "ln").symlink_to(tmp_path / "victim")
    os.link(tmp_path / "victim", dest / "hard")
    data = pack(
        member("ln", b"new"),
        member("hard", b"new"),
        member("again", type=tarfile.SYMTYPE, linkname=str(tmp_path / "victim")),
        member("again", b"new"),
    )
    assert upload(http, dest, data).json()["files_extracted"] == 4
    assert (tmp_path / "victim").read_text() == "keep"
    assert [(dest / name).read_text() for name in ("ln", "hard", "again")] == ["new"] * 3
    assert not (dest / "again").is_symlink()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Q"])
def test_special_entries_are_refused(http: httpx.Client, tmp_path: Path, kind: bytes) -> None:
    """Devices, FIFOs and unknown kinds are told by name; what came before stays and is counted."""
    info, _ = member("node", type=kind)
    answer = upload(http, tmp_path, pack(member("first", b"1"), (info, b"")))
    assert answer.status_code == 400
    assert answer.json()["details"] == {"files_extracted": 1, "member": "node"}
    assert names(tmp_path) == ["first"]


def test_set_id_bits(http: httpx.Client, tmp_path: Path) -> None:
    """They stay where the archive's owner stays: root's always, others' with preserve_owner."""
    data = pack(
        member("roots", b"x", mode=0o4755), member("users", b"x", mode=0o6755, uid=1000, gid=1000)
    )
    upload(http, tmp_path / "plain", data)
    upload(http, tmp_path / "kept", data, preserve_owner="true")
    modes = {
        path: (tmp_path / path).stat().st_mode & 0o7777
        for path in ("plain/roots", "plain/users", "kept/roots", "kept/users")
    }
    assert modes == {
        "plain/roots": 0o4755, "plain/users": 0o755, "kept/roots": 0o4755, "kept/users": 0o6755,
    }  # fmt: skip
    assert (tmp_path / "plain" / "users").stat().st_uid == os.geteuid()
    assert (tmp_path / "kept" / "users").stat().st_uid == 1000


def test_existing_directories_keep_their_modes(http: httpx.Client, tmp_path: Path) -> None:
    """`./` and directories that are there already are not changed."""
    tmp_path.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    data = pack(member("./", type=tarfile.DIRTYPE, mode=0o700), member("tmp", type=tarfile.DIRTYPE))
    assert upload(http, tmp_path, data).json()["files_extracted"] == 0
    assert tmp_path.stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_broken_archives_leave_good_files_alone(http: httpx.Client, tmp_path: Path) -> None:
    """Cut, corrupted or no archive at all: 400 that says what, and no half file."""
    (tmp_path / "good").write_text("good")
    packed = pack(member("good", os.urandom(MIB)))
    raw = gzip.decompress(packed)
    wrong_checksum = packed[:-8] + bytes(4) + packed[-4:]
    assert "incomplete" in refused(http, tmp_path, packed[: len(packed) // 2])
    assert "incomplete" in refused(http, tmp_path, raw[: MIB // 2])
    assert (tmp_path / "good").read_text() == "good"
    assert "no end mark" in refused(http, tmp_path / "x", raw[: 512 + MIB])
    assert "broken" in refused(http, tmp_path / "x", wrong_checksum)
    assert "no tar archive" in refused(http, tmp_path, b"hello" * 1000)
    assert "no tar archive" in refused(http, tmp_path, gzip.compress(b"hello" * 1000))
    assert "empty" in refused(http, tmp_path, b"")
    assert "zstd" in refused(http, tmp_path, b"\x28\xb5\x2f\xfd" + bytes(600))
    assert "zip" in refused(http, tmp_path, b"PK\x03\x04" + bytes(600))
    assert (tmp_path / "good").read_text() == "good"
    assert not list(tmp_path.rglob(".bastide-*"))


def header(**changes: bytes) -> bytes:
    """A ustar header block with raw fields replaced and the checksum made right."""
    fields = {
        "name": b"f".ljust(100, b"\0"), "mode": b"0000644\0", "uid": b"0000000\0",
        "gid": b"0000000\0", "size": b"00000000000\0", "mtime": b"00000000000\0",
        "sum": b" " * 8, "kind": b"0", "target": bytes(100), "magic": b"ustar\x0000",
        "rest": bytes(247),
    }  # fmt: skip
    block = bytearray(b"".join({**fields, **changes}.values()).ljust(512, b"\0"))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_hostile_headers(http: httpx.Client, tmp_path: Path) -> None:
    """Sizes, numbers, maps and extension headers that lie are a 400."""
    end = bytes(1024)
    huge = b"77777777777\0"
    hostile = {
        "huge pax": header(kind=b"x", size=huge) + end,
        "huge name": header(kind=b"L", size=huge) + end,
        "negative size": header(size=b"\xff" * 12) + end,
        "huge size": header(size=b"\x80" + b"\x7f" * 11) + end,
        "no number": header(size=b"hello world\0") + end,
        "pax length": header(kind=b"x", size=b"00000000005\0") + b"999 a".ljust(512, b"\0") + end,
        "pax none": header(kind=b"x", size=b"00000000005\0") + b"hello".ljust(512, b"\0") + end,
        "endless pax": (header(kind=b"x", size=b"00000000006\0") + b"6 a=b\n".ljust(512, b"\0"))
        * 20,
        "sparse": header(kind=b"S", rest=(bytes(129) + b"\x7f" * 97)) + end,
        "nul": pack(member("a")) and header(kind=b"x", size=b"00000000013\0")
        + b"13 path=a\0b\nx".ljust(512, b"\0") + header() + end,
        "deep": pack(member("a/" * 300 + "f")),
        "long": pack(member("n" * 300)),
        "long target": pack(member("f", type=tarfile.SYMTYPE, linkname="t" * 5000)),
        "missing link": pack(member("f", type=tarfile.LNKTYPE, linkname="no")),
        "link to dir": pack(member("d", type=tarfile.DIRTYPE),
                            member("f", type=tarfile.LNKTYPE, linkname="d")),
        "no name": header(name=bytes(100)) + end,
        "no target": header(kind=b"2") + end,
    }  # fmt: skip
    for name, data in hostile.items():
        answer = upload(http, tmp_path / "x", data)
        assert answer.status_code == 400, (name, answer.text)
    assert http.get("/health").status_code == 200


def test_odd_times_and_names(http: httpx.Client, tmp_path: Path) -> None:
    """Times beyond the calendar are narrowed; names of any bytes are kept."""
    data = pack(
        member("old", mtime=-1),
        member("late", mtime=10**15),
        member("\udcff\udcfe", b"bytes"),
    )
    assert upload(http, tmp_path, data).json()["files_extracted"] == 3
    assert (tmp_path / "old").stat().st_mtime == -1
    assert "\udcff\udcfe" in names(tmp_path)


def test_directory_in_the_way(http: httpx.Client, tmp_path: Path) -> None:
    """A file does not replace a directory, a directory not a file."""
    (tmp_path / "d" / "inner").mkdir(parents=True)
    (tmp_path / "f").write_text("f")
    assert "directory" in refused(http, tmp_path, pack(member("d", b"x")))
    assert "file" in refused(http, tmp_path, pack(member("f", type=tarfile.DIRTYPE)))
    assert "file" in refused(http, tmp_path, pack(member("f/x", b"x")))
    assert "directory" in refused(http, tmp_path / "f", pack(member("x", b"x")))
    assert (tmp_path / "f").read_text() == "f"
    assert upload(http, "relative", pack(member("x"))).status_code == 400
    assert upload(http, "/proc/nothing", pack(member("x"))).status_code in (400, 403)


def test_client_that_leaves_in_the_middle(own_agent: Agent, tmp_path: Path) -> None:
    """A broken connection leaves complete files, and no half one in place of a good one."""
    (tmp_path / "good").write_text("good")
    packed = pack(member("first", b"1"), member("good", os.urandom(4 * MIB)))
    head = (
        f"POST {URL}?dest={tmp_path} HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {RUNTIME_TOKEN}\r\nContent-Length: {len(packed)}\r\n\r\n"
    ).encode()
    sock = socket.create_connection(("127.0.0.1", own_agent.runtime_port), timeout=DEADLINE)
    sock.sendall(head + packed[: len(packed) // 2])
    while not list(tmp_path.glob(".bastide-*")):
        pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    while list(tmp_path.glob(".bastide-*")):
        pass
    assert (tmp_path / "good").read_text() == "good"
    assert (tmp_path / "first").read_text() == "1"


def test_race_cannot_lead_outside(own_agent: Agent, tmp_path: Path) -> None:
    """A program that swaps directories for links all the time gets nothing written outside."""
    outside, dest = tmp_path / "outside", tmp_path / "dest"
    outside.mkdir()
    (dest / "d" / "e").mkdir(parents=True)
    data = pack(*(member(f"d/e/{number}", b"x" * 100) for number in range(500)))
    stop = threading.Event()

    def swap() -> None:
        count = 0
        while not stop.is_set():
            with contextlib.suppress(OSError):  # the upload makes what it misses
                count += 1
                (dest / "d").rename(dest / f"aside{count}")
                (dest / "d").symlink_to(outside)
                (dest / "d").unlink()
                (dest / f"aside{count}").rename(dest / "d")

    (outside / "e").mkdir()
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        with own_agent.client() as http:
            statuses = {upload(http, dest, data).status_code for _ in range(60)}
    finally:
        stop.set()
        thread.join()
    assert statuses <= {200, 400, 409}
    assert names(outside) == ["e"]
    assert names(outside / "e") == []


def test_bomb_meets_the_disk(own_agent: Agent, tmp_path: Path) -> None:
    """A gzip bomb ends at the end of the disk with a 507, and its half file is gone."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)],
                             check=False, capture_output=True)  # fmt: skip
    if mounted.returncode:
        pytest.skip("this needs root")
    try:
        with own_agent.client() as http:
            bomb = pack(member("bomb", bytes(64 * MIB)))
            answer = upload(http, place, bomb)
        assert answer.status_code == 507
        assert answer.json()["code"] == "insufficient_storage"
        assert names(place) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_memory_stays_small(own_agent: Agent, tmp_path: Path) -> None:
    """A file of 64 MiB goes up and down through a few MiB."""
    with own_agent.client() as http:
        assert upload(http, tmp_path, pack(member("x", b"x"))).status_code == 200
        before = own_agent.memory_kib()
        packed = pack(member("big", os.urandom(MIB) * 64))
        assert upload(http, tmp_path, packed).json()["files_extracted"] == 1
        with http.stream("POST", "/files/transfer/download",
                         json={"paths": [str(tmp_path / "big")]}) as answer:  # fmt: skip
            size = sum(len(piece) for piece in answer.iter_raw())
        assert size > 32 * MIB
        assert own_agent.memory_kib() - before < 8 * 1024
