"""Downloading files and trees as tar.gz (spec runtime 10)."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import tarfile
import threading
from pathlib import Path

import httpx
import pytest
from tests.agent.conftest import DEADLINE, RUNTIME_TOKEN, Agent

URL = "/files/transfer/download"
MIB = 1024 * 1024


def download(http: httpx.Client, *paths: Path | str, exclude: list[str] | None = None) -> bytes:
    """The tar of a download."""
    body = {"paths": [str(path) for path in paths], "exclude_patterns": exclude or []}
    answer = http.post(URL, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/gzip"
    return gzip.decompress(answer.content)


def members(raw: bytes) -> dict[str, tarfile.TarInfo]:
    """The members of a tar by name, as Python reads them."""
    with tarfile.open(fileobj=io.BytesIO(raw), errors="surrogateescape") as archive:
        return {member.name: member for member in archive}


def extract(raw: bytes, into: Path, program: tuple[str, ...] = ("tar",)) -> None:
    """Extract with a real tar program."""
    into.mkdir()
    subprocess.run([*program, "-xf", "-", "-C", str(into)], input=raw, check=True)


def refusal(http: httpx.Client, body: object) -> tuple[int, str]:
    """Status and code of a refused download."""
    answer = http.post(URL, json=body)
    assert answer.json()["success"] is False
    return answer.status_code, answer.json()["code"]


def test_tree_comes_back_with_modes_times_and_links(http: httpx.Client, tmp_path: Path) -> None:
    """GNU tar gives the tree back: contents, modes, times, symlinks, hard links, empty dirs."""
    tree = tmp_path / "app"
    (tree / "src" / "deep").mkdir(parents=True)
    (tree / "empty").mkdir(mode=0o750)
    (tree / "src" / "main.py").write_bytes(b"print('hello')\n" * 1000)
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o4755)
    (tree / "src" / "deep" / "zero").touch()
    (tree / "link").symlink_to("src/main.py")
    (tree / "dangling").symlink_to("/nowhere/" + "x" * 150)
    os.link(tree / "run", tree / "run-too")
    os.utime(tree / "src" / "main.py", (1_500_000_000, 1_500_000_000))
    os.utime(tree / "src", (1_400_000_000, 1_400_000_000))
    extract(download(http, tree), tmp_path / "out")
    out = tmp_path / "out" / "app"
    assert (out / "src" / "main.py").read_bytes() == b"print('hello')\n" * 1000
    assert (out / "src" / "main.py").stat().st_mtime == 1_500_000_000
    assert (out / "src").stat().st_mtime == 1_400_000_000
    assert (out / "run").stat().st_mode & 0o7777 == 0o4755
    assert (out / "run").samefile(out / "run-too")
    assert (out / "empty").stat().st_mode & 0o777 == 0o750
    assert (out / "link").readlink() == Path("src/main.py")
    assert (out / "dangling").readlink() == Path("/nowhere/" + "x" * 150)
    assert (out / "src" / "deep" / "zero").read_bytes() == b""


def test_single_files_go_by_their_base_name(http: httpx.Client, tmp_path: Path) -> None:
    """Files lie at the top of the archive; a symlink asked for is stored as a link."""
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("22")
    (tmp_path / "ln").symlink_to("one")
    found = members(download(http, tmp_path / "one", tmp_path / "two", f"{tmp_path}/ln/"))
    assert sorted(found) == ["ln", "one", "two"]
    assert found["two"].size == 2
    assert found["ln"].issym()


def test_excludes_hold_at_every_level(http: httpx.Client, tmp_path: Path) -> None:
    """Globs fit names at any depth, or a path; what was asked for by name always comes."""
    tree = tmp_path / "node_modules"
    for name in ("a.log", "keep", ".git/config", "x/y/.git/config", "x/b.log", "x/only/this"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    found = members(download(http, tree, exclude=["node_modules", ".git", "*.log", "x/only"]))
    assert sorted(found) == [
        "node_modules", "node_modules/keep", "node_modules/x", "node_modules/x/y",
    ]  # fmt: skip


@pytest.mark.parametrize("program", [("tar",), ("busybox", "tar")])
def test_odd_names(http: httpx.Client, tmp_path: Path, program: tuple[str, ...]) -> None:
    """Names that are long, not UTF-8 or full of odd characters survive."""
    tree = tmp_path / "odd"
    tree.mkdir()
    base = os.fsencode(tree)
    names = [b"\xff\xfe", b"new\nline", b" -rf", b"n" * 255, "grüße".encode(), b"d" * 120]
    for name in names[:-1]:
        Path(os.fsdecode(base + b"/" + name)).write_bytes(name)
    deep = base + b"/" + names[-1] + b"/" + b"e" * 200
    Path(os.fsdecode(deep)).mkdir(parents=True)
    Path(os.fsdecode(deep + b"/leaf")).write_bytes(b"leaf")
    extract(download(http, tree), tmp_path / "out", program)
    out = tmp_path / "out" / "odd"
    assert sorted(os.fsencode(path.name) for path in out.iterdir()) == sorted(names)
    for name in names[:-1]:
        assert (out / os.fsdecode(name)).read_bytes() == name
    leaf = out / os.fsdecode(names[-1]) / ("e" * 200) / "leaf"
    assert leaf.read_bytes() == b"leaf"


def test_sparse_file_is_small_and_whole(http: httpx.Client, tmp_path: Path) -> None:
    """A file of 10 GiB that is mostly hole takes no time, and GNU tar makes it whole again."""
    size = 10 * 1024 * MIB
    with (tmp_path / "disk").open("wb") as file:
        for place in range(8):  # more extents than fit into the header
            file.seek(place * 1024 * MIB)
            file.write(b"%d" % place * 4096)
        file.truncate(size)
    raw = download(http, tmp_path / "disk")
    assert len(raw) < MIB
    info = members(raw)["disk"]
    assert info.size == size
    extract(raw, tmp_path / "out")
    with (tmp_path / "out" / "disk").open("rb") as file:
        file.seek(7 * 1024 * MIB)
        assert file.read(4096) == b"7" * 4096
        assert file.seek(0, os.SEEK_END) == size


def test_special_files_are_left_out(http: httpx.Client, tmp_path: Path) -> None:
    """A FIFO does not hang the download, a socket does not spoil it."""
    tree = tmp_path / "special"
    tree.mkdir()
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tree / "sock"))
        (tree / "file").write_text("x")
        assert sorted(members(download(http, tree))) == ["special", "special/file"]
        assert refusal(http, {"paths": [str(tree / "fifo")]}) == (400, "validation_error")


def test_unreadable_entry_is_told(http: httpx.Client, tmp_path: Path) -> None:
    """What cannot be read is left out, named in the last member; the rest comes."""
    folder = tmp_path / "deep"
    here = folder
    for _ in range(260):
        here = here / "d"
    here.mkdir(parents=True)
    (folder / "file").write_text("x")
    raw = download(http, folder)
    found = members(raw)
    assert "deep/file" in found
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        last = archive.getmembers()[-1]
        assert last.name == ".bastide-skipped"
        told = archive.extractfile(last)
        assert told is not None
        assert b"\tmore than 256 directories deep\n" in told.read()


def test_pseudo_file_systems_are_left_out(http: httpx.Client) -> None:
    """Kernel files are refused, so that `/` can be downloaded at all."""
    for path in ("/proc", "/proc/self/status", "/sys", "/dev"):
        assert refusal(http, {"paths": [path]}) == (400, "validation_error")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"paths": []},
        {"paths": "/etc"},
        {"paths": ["etc"]},
        {"paths": [1]},
        {"paths": ["/etc/.."]},
        {"paths": ["/etc", "/"]},
        {"paths": ["/etc/passwd", "/usr/../etc/passwd"]},
        {"paths": ["/x\0y"]},
        {"paths": ["/" + "x" * 5000]},
        {"paths": ["/" + "x" * 300]},
        {"paths": ["/etc/passwd"], "exclude_patterns": "x"},
        {"paths": ["/etc/passwd"], "exclude_patterns": ["x"] * 101},
        {"paths": ["/etc/passwd"], "exclude_patterns": ["x" * 257]},
    ],
)
def test_wrong_requests(http: httpx.Client, body: object) -> None:
    """Bad input is a 400 before anything is sent."""
    assert refusal(http, body) == (400, "validation_error")


def test_missing_path_is_404(http: httpx.Client, tmp_path: Path) -> None:
    """One missing path among several refuses the whole download."""
    (tmp_path / "there").touch()
    for missing in (tmp_path / "no", tmp_path / "there" / "no"):
        body = {"paths": [str(tmp_path / "there"), str(missing)]}
        assert refusal(http, body) == (404, "not_found")


def test_file_that_changes_while_it_is_read(own_agent: Agent, tmp_path: Path) -> None:
    """A file cut and grown again and again never breaks the archive."""
    tree = tmp_path / "live"
    tree.mkdir()
    for number in range(20):
        (tree / f"a{number}").write_bytes(os.urandom(MIB))
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for number in range(20):
                os.truncate(tree / f"a{number}", 1000)
                os.truncate(tree / f"a{number}", 3 * MIB)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        with own_agent.client() as http:
            for _ in range(5):
                raw = download(http, tree)
                found = members(raw)
                assert {f"live/a{number}" for number in range(20)} <= set(found)
                subprocess.run(["tar", "-tf", "-"], input=raw, check=True, capture_output=True)
    finally:
        stop.set()
        thread.join()


def test_client_that_leaves_frees_its_place(own_agent: Agent, tmp_path: Path) -> None:
    """Downloads nobody takes wait without growing; above the limit is 429; leaving frees."""
    (tmp_path / "big").write_bytes(os.urandom(64 * MIB))
    head = f"POST {URL} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {RUNTIME_TOKEN}\r\n"
    body = f'{{"paths":["{tmp_path}/big"]}}'
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    with own_agent.client() as http:
        assert len(download(http, "/etc/passwd")) > 0
        before = own_agent.memory_kib()
        idle = []
        for _ in range(8):
            sock = socket.create_connection(("127.0.0.1", own_agent.runtime_port), timeout=DEADLINE)
            sock.sendall(request)
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
            idle.append(sock)
        answer = http.post(URL, json={"paths": ["/etc/passwd"]})
        assert answer.status_code == 429
        assert answer.headers["retry-after"]
        assert own_agent.memory_kib() - before < 16 * 1024
        for sock in idle:
            sock.close()
        while http.post(URL, json={"paths": ["/etc/passwd"]}).status_code == 429:
            pass
