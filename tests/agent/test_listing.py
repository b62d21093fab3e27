"""Files: list and stream, with all their options."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import httpx
import pytest
from tests.agent.conftest import Agent
from tests.agent.trees import listing, names


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
