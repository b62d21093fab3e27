"""Files: list, stream, read, write, stat, mkdir, delete, and what a hostile tree does to them."""

from __future__ import annotations

import hashlib
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


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small project."""
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/app.py").write_text("print('hi')\n")
    (tmp_path / "src/deep/Main.GO").write_text("package main\n")
    (tmp_path / "src/logo.png").write_bytes(b"\x89PNG\0\xff")
    (tmp_path / "README").write_text("read me")
    (tmp_path / ".hidden").write_text("h")
    (tmp_path / "link").symlink_to("src")
    (tmp_path / "empty").mkdir()
    return tmp_path


def listing(http: httpx.Client, path: Path, **params: str | int) -> dict[str, Any]:
    """A successful list."""
    query = {key: str(value).lower() for key, value in params.items()}
    answer = http.get("/files", params={"path": str(path), **query})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["success"] is True
    return found


def names(found: dict[str, Any], base: Path) -> list[str]:
    """Paths of the entries below the listed directory."""
    return [entry["path"].removeprefix(f"{base}/") for entry in found["entries"]]


def test_list_one_level(http: httpx.Client, tree: Path) -> None:
    """One level, sorted by name, hidden files shown, links not followed."""
    found = listing(http, tree)
    assert names(found, tree) == [".hidden", "README", "empty", "link", "src"]
    assert found["count"] == 5
    assert found["path"] == str(tree)
    entry = found["entries"][1]
    assert entry["name"] == "README"
    assert entry["path"] == f"{tree}/README"
    assert entry["type"] == "file"
    assert entry["size"] == 7
    assert entry["modified"].endswith("Z")
    assert [item["type"] for item in found["entries"]][2:] == ["directory", "symlink", "directory"]


def test_list_tree_and_flat(http: httpx.Client, tree: Path) -> None:
    """A tree has children inside directories; a flat list has every path."""
    found = listing(http, tree, nested=True)
    source = found["entries"][4]
    assert [child["name"] for child in source["children"]] == ["app.py", "deep", "logo.png"]
    assert source["children"][1]["children"][0]["name"] == "Main.GO"
    assert found["entries"][2]["children"] == []
    assert "children" not in found["entries"][3]
    assert found["count"] == 9
    flat = listing(http, tree, nested=True, flatten=True)
    assert names(flat, tree) == [
        ".hidden", "README", "empty", "link", "src", "src/app.py", "src/deep", "src/deep/Main.GO",
        "src/logo.png",
    ]  # fmt: skip
    assert listing(http, tree, nested=True, flatten=True, max_depth=1)["count"] == 5


def test_the_kernels_file_systems_are_not_gone_into(http: httpx.Client) -> None:
    """A list of everything below `/` shows /proc and its like, and goes into none of them."""
    found = listing(http, Path("/"), nested=True, flatten=True, light=True, max_depth=2)
    paths = [entry["path"] for entry in found["entries"]]
    assert {"/proc", "/sys", "/dev", "/etc/passwd"} <= set(paths)
    assert not [path for path in paths if path.startswith(("/proc/", "/sys/", "/dev/"))]


def test_list_extras(http: httpx.Client, tree: Path) -> None:
    """Light leaves out sizes; hash, content and extension come when asked for."""
    light = listing(http, tree / "src", light=True)["entries"][0]
    assert set(light) == {"name", "path", "type"}
    found = listing(
        http, tree / "src", include_hash=True, include_content=True, include_extensions=True
    )
    entry = found["entries"][0]
    assert entry["content"] == "print('hi')\n"
    assert entry["hash"] == hashlib.sha256(b"print('hi')\n").hexdigest()
    assert entry["extension"] == ".py"
    image = found["entries"][2]
    assert "content" not in image
    assert image["hash"]
    assert "extension" not in found["entries"][1]


def test_content_budget(http: httpx.Client, tree: Path) -> None:
    """Files that no longer fit the budget come without content."""
    (tree / "a").write_text("x" * 10)
    (tree / "b").write_text("y" * 10)
    found = listing(http, tree, include_content=True, max_content_budget=17)
    with_content = [entry["name"] for entry in found["entries"] if "content" in entry]
    assert with_content == [".hidden", "README"]


def test_list_filters(http: httpx.Client, tree: Path) -> None:
    """Code only, extensions, path filter and globs; a tree loses branches without a match."""
    flat = {"nested": True, "flatten": True}
    assert names(listing(http, tree, code_files_only=True, **flat), tree) == [
        "src/app.py", "src/deep/Main.GO",
    ]  # fmt: skip
    assert names(listing(http, tree, include_ext="go, *.png", **flat), tree) == [
        "src/deep/Main.GO", "src/logo.png",
    ]  # fmt: skip
    assert names(listing(http, tree, path_filter="DEEP", **flat), tree) == [
        "src/deep", "src/deep/Main.GO",
    ]  # fmt: skip
    assert names(listing(http, tree, ignore_patterns="src/deep,.h*,link", **flat), tree) == [
        "README", "empty", "src", "src/app.py", "src/logo.png",
    ]  # fmt: skip
    branch = listing(http, tree, include_ext="go", nested=True)
    assert names(branch, tree) == ["src"]
    assert [child["name"] for child in branch["entries"][0]["children"]] == ["deep"]
    assert branch["count"] == 3
    assert "src" in names(listing(http, tree, code_files_only=True), tree)


def test_gitignore(http: httpx.Client, tree: Path) -> None:
    """Ignored entries are hidden by default, those of parents in the repository too."""
    (tree / ".git").mkdir()
    (tree / ".gitignore").write_text("*.png\nempty/\n!keep.png\n/src/deep\n")
    (tree / "src/keep.png").touch()
    flat = {"nested": True, "flatten": True}
    assert names(listing(http, tree / "src", **flat), tree / "src") == ["app.py", "keep.png"]
    assert "empty" not in names(listing(http, tree), tree)
    assert len(names(listing(http, tree / "src", use_gitignore=False, **flat), tree)) == 5


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("path=relative", 400, "path"),
        ("path=/a%00b", 400, "path"),
        ("path=/" + "a" * 5000, 400, "path"),
        ("path=/etc/passwd", 400, "path"),
        ("path=/&nested=maybe", 400, "nested"),
        ("path=/&max_depth=0", 400, "max_depth"),
        ("path=/&max_depth=x", 400, "max_depth"),
        ("path=/&max_content_budget=-1", 400, "max_content_budget"),
        ("path=/&path_filter=" + "a" * 2000, 400, "path_filter"),
        ("path=/no/such/place", 404, None),
    ],
)
def test_list_wrong_fields(http: httpx.Client, query: str, status: int, field: str | None) -> None:
    """Each wrong field is named, a missing directory is 404; list and stream alike."""
    for path in ("/files", "/files/stream"):
        answer = http.get(f"{path}?{query}")
        assert answer.status_code == status
        assert answer.json()["success"] is False
        if field:
            assert answer.json()["details"]["field"] == field


def test_stream(http: httpx.Client, tree: Path) -> None:
    """start, one line an entry, done with the count; recursion forced on."""
    with http.stream(
        "GET", "/files/stream", params={"path": str(tree), "nested": "false"}
    ) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.read().decode().splitlines()]
    assert lines[0] == {"event": "start", "path": str(tree)}
    assert lines[-1] == {"event": "done", "count": 9}
    assert sorted(line["path"] for line in lines[1:-1]) == sorted(
        entry["path"] for entry in listing(http, tree, nested=True, flatten=True)["entries"]
    )
    assert not any("event" in line for line in lines[1:-1])


def test_many_entries(http: httpx.Client, tmp_path: Path) -> None:
    """50,000 are shown, one more is cut and said."""
    for number in range(501):
        folder = tmp_path / f"d{number:03}"
        folder.mkdir()
        for inner in range(99):
            (folder / f"f{inner}").touch()
    found = listing(http, tmp_path, nested=True, flatten=True)
    assert found["count"] == len(found["entries"]) == 50_000
    assert found["truncated"] is True
    found = listing(http, tmp_path, nested=True, ignore_patterns="d500")
    assert found["count"] == 50_000
    assert "truncated" not in found
    with http.stream("GET", "/files/stream", params={"path": str(tmp_path)}) as answer:
        last = list(answer.iter_lines())[-1]
    assert json.loads(last) == {"event": "done", "count": 50_000, "truncated": True}


def test_names_that_are_no_utf8(http: httpx.Client, tmp_path: Path) -> None:
    """Such names are listed and can be used again, as bytes in a query or as they were given."""
    raw = os.fsencode(tmp_path) + b"/n\xff"
    Path(os.fsdecode(raw)).write_text("content")
    entry = listing(http, tmp_path)["entries"][0]
    query = "path=" + "".join(f"%{byte:02x}" for byte in raw)
    assert http.get(f"/files/read?{query}").json()["content"] == "content"
    body = json.dumps({"path": entry["path"]})
    assert http.post("/files/delete", content=body).status_code == 200
    assert listing(http, tmp_path)["count"] == 0


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


def test_loop_stays_free_during_a_walk(http: httpx.Client, agent: Agent, tmp_path: Path) -> None:
    """Other requests are answered while a long listing runs."""
    for number in range(100):
        folder = tmp_path / str(number)
        folder.mkdir()
        for inner in range(100):
            (folder / str(inner)).write_bytes(b"x" * 1000)
    walking = threading.Thread(
        target=lambda: listing(http, tmp_path, nested=True, include_hash=True, include_content=True)
    )
    walking.start()
    answered = 0
    with agent.client() as other:
        while walking.is_alive():
            assert other.get("/health").status_code == 200
            answered += 1
    assert answered > 3
