"""Files: read, write, stat, mkdir, delete, and what a hostile tree does to them."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.agent.conftest import DEADLINE, Agent
from tests.agent.trees import listing


def read(http: httpx.Client, path: Path, **params: object) -> dict[str, Any]:
    """A successful read."""
    answer = http.get("/files/read", params={"path": str(path), **params})  # type: ignore[dict-item]
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_read(http: httpx.Client, tmp_path: Path) -> None:
    """Whole files, ranges and line numbers."""
    file = tmp_path / "f.txt"
    file.write_bytes(b"one\ntwo\r\nthree")
    whole = read(http, file)
    assert whole == {
        "success": True, "path": str(file), "content": "one\ntwo\r\nthree", "size": 14, "lines": 3,
        "extension": ".txt",
    }  # fmt: skip
    assert read(http, file, start_line=2, end_line=2)["content"] == "two\r\n"
    part = read(http, file, start_line=2, with_line_numbers="true")
    assert part["content"] == "2\ttwo\r\n3\tthree"
    assert (part["start_line"], part["end_line"], part["lines"]) == (2, 3, 2)
    assert read(http, file, end_line=1)["content"] == "one\n"
    assert read(http, file, end_line=1, with_line_numbers="true")["content"] == "1\tone\n"
    beyond = read(http, file, start_line=9)
    assert (beyond["content"], beyond["lines"]) == ("", 0)
    file.write_bytes(b"")
    assert read(http, file)["lines"] == 0
    file.write_bytes(b"\xff\0x")
    assert read(http, file)["content"] == "\ufffd\0x"
    assert "Name:" in read(http, Path("/proc/self/status"))["content"]


def test_read_ranges_of_a_large_file(http: httpx.Client, tmp_path: Path) -> None:
    """A file above the limit is 413 as a whole, but any range of its lines can be had."""
    file = tmp_path / "large"
    with file.open("w") as out:
        for number in range(1, 2_000_001):
            out.write(f"line number {number}\n")
    answer = http.get("/files/read", params={"path": str(file)})
    assert answer.status_code == 413
    assert answer.json()["details"]["limit_bytes"] > 0
    for first, last in ((1, 1), (777_777, 777_779), (1_999_999, 3_000_000)):
        part = read(http, file, start_line=first, end_line=last)
        expected = "".join(
            f"line number {number}\n" for number in range(first, min(last, 2_000_000) + 1)
        )
        assert part["content"] == expected
    answer = http.get("/files/read", params={"path": str(file), "start_line": 2})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "status"),
    [("", 400), ("/etc", 400), ("/no/such", 404), ("/dev/null", 400), ("/etc/passwd/x", 400)],
)
def test_read_what_is_no_file(http: httpx.Client, path: str, status: int) -> None:
    """Directories and devices are 400, missing things 404."""
    assert http.get("/files/read", params={"path": path}).status_code == status


def test_pipes_and_sockets_never_hang(http: httpx.Client, tmp_path: Path) -> None:
    """Pipes, sockets and devices are refused by read and write, shown by list and stat."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            path = str(tmp_path / name)
            assert http.get("/files/read", params={"path": path}).status_code == 400
            for append in (True, False):
                body = {"path": path, "content": "x", "append": append}
                assert http.post("/files/write", json=body).status_code == 400
            assert http.get("/files/stat", params={"path": path}).json()["type"] == "file"
        body = {"path": "/dev/null", "content": "x"}
        assert http.post("/files/write", json=body).status_code == 400
        found = listing(http, tmp_path, include_hash=True, include_content=True)
        assert found["count"] == 2
        assert not any("hash" in entry for entry in found["entries"])


def test_write(http: httpx.Client, tmp_path: Path) -> None:
    """New files, replacement, append, bits, parents; nothing left beside the file."""
    file = tmp_path / "f"
    answer = http.post("/files/write", json={"path": str(file), "content": "héllo"})
    assert answer.status_code == 201
    assert answer.json() == {"success": True, "path": str(file), "size": 6}
    assert file.stat().st_mode & 0o7777 == 0o644
    file.chmod(0o750)
    http.put("/files/write", json={"path": str(file), "content": "x"})
    assert file.read_text() == "x"
    assert file.stat().st_mode & 0o7777 == 0o750
    http.post("/files/write", json={"path": str(file), "content": "y", "mode": "0600"})
    assert file.stat().st_mode & 0o7777 == 0o600
    grown = http.post("/files/write", json={"path": str(file), "content": "z", "append": True})
    assert grown.json()["size"] == 2
    assert file.read_text() == "yz"
    deep = tmp_path / "a/b/c"
    body: dict[str, object] = {"path": str(deep), "content": "", "append": True}
    assert http.post("/files/write", json=body).status_code == 404
    assert http.post("/files/write", json={**body, "create_dirs": True}).status_code == 201
    assert deep.read_text() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "f"]


def test_write_through_links(http: httpx.Client, tmp_path: Path) -> None:
    """A link is written through, also when it points to nothing yet, and stays a link."""
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("fresh")
    (tmp_path / "loop").symlink_to("loop")
    for name, target in (("link", "target"), ("dangling", "fresh")):
        body = {"path": str(tmp_path / name), "content": "new"}
        assert http.post("/files/write", json=body).status_code == 201
        assert (tmp_path / target).read_text() == "new"
        assert (tmp_path / name).is_symlink()
    body = {"path": str(tmp_path / "loop"), "content": "x"}
    assert http.post("/files/write", json=body).status_code == 400


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "path"),
        ({"path": "/tmp/x"}, 400, "content"),
        ({"path": "/tmp/x", "content": 1}, 400, "content"),
        ({"path": "/tmp/x", "content": "\ud800"}, 400, "content"),
        ({"path": "x", "content": ""}, 400, "path"),
        ({"path": "/tmp/x", "content": "", "mode": "999"}, 400, "mode"),
        ({"path": "/tmp/x", "content": "", "mode": 644}, 400, "mode"),
        ({"path": "/tmp/x", "content": "", "append": "no"}, 400, "append"),
        ({"path": "/tmp/x/", "content": ""}, 400, "path"),
        ({"path": "/tmp", "content": ""}, 400, "path"),
        ({"path": "/", "content": ""}, 400, "path"),
        ({"path": "/etc/passwd/x", "content": ""}, 400, "path"),
        ({"path": "/tmp/" + "n" * 300, "content": ""}, 400, "path"),
        ({"path": "/proc/x", "content": ""}, 404, None),
    ],
)
def test_write_wrong_fields(
    http: httpx.Client, body: dict[str, object], status: int, field: str | None
) -> None:
    """Each wrong field is named."""
    answer = http.post("/files/write", content=json.dumps(body))
    assert answer.status_code == status
    if field:
        assert answer.json()["details"]["field"] == field


@pytest.mark.parametrize("body", [b"[]", b"{", b'"x"', b"\xff", b"[" * 100_000, b"nul", b"1"])
def test_bodies_that_are_no_object(http: httpx.Client, body: bytes) -> None:
    """Whatever is no JSON object is a 400."""
    for path in ("/files/write", "/files/mkdir", "/files/delete", "/exec"):
        answer = http.post(path, content=body)
        assert answer.status_code == 400
        assert answer.json()["details"]["field"] == "body"


def test_body_limits(http: httpx.Client, agent: Agent, tmp_path: Path) -> None:
    """32 MiB can be written; a larger body is 413, at once when its length is announced."""
    file = tmp_path / "big"
    answer = http.post("/files/write", json={"path": str(file), "content": "x" * (32 << 20)})
    assert answer.status_code == 201
    assert file.stat().st_size == 32 << 20
    head = f"Host: a\r\nAuthorization: {http.headers['authorization']}\r\n"
    with socket.create_connection(("127.0.0.1", agent.runtime_port), timeout=DEADLINE) as sock:
        head += "Content-Length: 99999999\r\nExpect: 100-continue\r\n"
        sock.sendall(f"POST /files/write HTTP/1.1\r\n{head}\r\n".encode())
        assert b" 413 " in sock.recv(65536)

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * (1 << 20)

    assert http.post("/files/write", content=pieces()).status_code == 413


def test_readers_never_see_a_part(http: httpx.Client, tmp_path: Path) -> None:
    """A file that is rewritten all the time always holds one of its contents."""
    file = tmp_path / "f"
    file.write_text("a" * 100_000)
    done = threading.Event()
    seen: set[str] = set()

    def watch() -> None:
        while not done.is_set():
            seen.add(file.read_text())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for letter in "bcdefghij":
            http.post("/files/write", json={"path": str(file), "content": letter * 100_000})
    finally:
        done.set()
        watcher.join()
    assert all(len(text) == 100_000 and len(set(text)) == 1 for text in seen)


def test_mkdir(http: httpx.Client, tmp_path: Path) -> None:
    """Parents are made, an existing directory is fine, a file in the way is 409."""
    path = tmp_path / "a/b/c"
    answer = http.post("/files/mkdir", json={"path": str(path), "mode": "0777"})
    assert answer.status_code == 201
    assert answer.json() == {"success": True, "path": str(path)}
    assert path.stat().st_mode & 0o7777 == 0o777
    assert http.post("/files/mkdir", json={"path": str(path)}).status_code == 201
    assert path.stat().st_mode & 0o7777 == 0o777
    (tmp_path / "file").touch()
    for inside in ("file", "file/x"):
        body = {"path": str(tmp_path / inside)}
        assert http.post("/files/mkdir", json=body).status_code == 409
    assert http.post("/files/mkdir", json={"path": "/"}).status_code == 201
    assert http.post("/files/mkdir", json={"path": "/proc/x"}).status_code in (403, 404)
    deep = str(tmp_path) + "/d" * 1500
    assert http.post("/files/mkdir", json={"path": deep}).status_code == 201
    assert http.post("/files/delete", json={"path": str(tmp_path / "d")}).status_code == 200
    assert not (tmp_path / "d").exists()


def test_stat(http: httpx.Client, tree: Path) -> None:
    """Files, directories, and links that are not followed."""
    file = http.get("/files/stat", params={"path": str(tree / "src/app.py")}).json()
    assert file["type"] == "file"
    assert file["permissions"] == "0644"
    assert file["size"] == 12
    assert file["is_code"] is True
    assert file["extension"] == ".py"
    link = http.get("/files/stat", params={"path": str(tree / "link")}).json()
    assert (link["type"], link["size"], link["permissions"]) == ("symlink", 0, "0777")
    assert link["symlink_target"] == "src"
    through = http.get("/files/stat", params={"path": f"{tree}/link/"}).json()
    assert through["type"] == "directory"
    (tree / "gone").symlink_to("/no/such")
    assert http.get("/files/stat", params={"path": str(tree / "gone")}).status_code == 200
    assert http.get("/files/stat", params={"path": "/"}).json()["name"] == "/"
    assert http.get("/files/stat", params={"path": str(tree / "x")}).status_code == 404
    os.utime(tree / "README", (-1e10, -1e10))
    assert http.get("/files/stat", params={"path": str(tree / "README")}).json()["modified"]
    assert listing(http, tree)["count"] == 6


def test_delete(http: httpx.Client, tree: Path) -> None:
    """Files, links and trees, by body or query, POST or DELETE."""
    outside = tree / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (tree / "src/way-out").symlink_to(outside)
    assert http.delete("/files/delete", params={"path": f"{tree}/README"}).json()["success"] is True
    assert http.post("/files/delete", json={"path": f"{tree}/link"}).status_code == 200
    assert (tree / "src/app.py").exists()
    assert http.request("DELETE", "/files/delete", json={"path": f"{tree}/src/"}).status_code == 200
    assert not (tree / "src").exists()
    assert (outside / "kept").exists()
    assert http.post("/files/delete", json={"path": f"{tree}/src"}).status_code == 404
    assert http.post("/files/delete", json={}).status_code == 400


def test_delete_of_a_deep_and_wide_tree(http: httpx.Client, tmp_path: Path) -> None:
    """Depth beyond open files and path lengths, and many entries, are no obstacle."""
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for number in range(3000):
        os.mkdir(f"level{number}", dir_fd=here)
        inner = os.open(f"level{number}", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    for number in range(3000):
        (top / f"d{number}").mkdir()
        (top / f"d{number}/f").touch()
    assert http.post("/files/delete", json={"path": str(top)}).status_code == 200
    assert not top.exists()


def test_races_with_links(http: httpx.Client, tmp_path: Path) -> None:
    """Swapping directories for links while they are listed and deleted leads nowhere outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for number in range(50):
        (outside / f"precious{number}").touch()
    area = tmp_path / "area"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            try:
                (area / "d/x").mkdir(parents=True, exist_ok=True)
                for number in range(20):
                    (area / f"d/x/{number}").touch()
                (area / "d/x").rename(area / "y")
                (area / "d/x").symlink_to(outside)
                (area / "d/x").unlink()
            except OSError:
                continue

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(150):
            assert http.post("/files/delete", json={"path": str(area)}).status_code in (
                200,
                404,
                409,
            )
            answer = http.get("/files", params={"path": str(tmp_path), "nested": "true",
                                                "flatten": "true"})  # fmt: skip
            assert not [
                e
                for e in answer.json()["entries"]
                if "/area/" in e["path"] and "precious" in e["name"]
            ]
    finally:
        done.set()
        swapper.join()
    assert len(list(outside.iterdir())) == 50
