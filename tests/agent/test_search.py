"""Search by content and by name (spec runtime 5)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project."""
    root = tmp_path_factory.mktemp("project")
    (root / "src").mkdir()
    (root / "src/server.go").write_text("package main\n\tfunc Handle() {}\n// handle it\n// tail\n")
    (root / "src/app.py").write_text("def handle():\n    return '--files'\n")
    (root / "src/odd name.txt").write_text("a+b handler a.b\n12:34:text\n")
    (root / ".hidden").write_text("handle\n")
    (root / ".gitignore").write_text("*.log\n")
    (root / "debug.log").write_text("handle\n")
    (root / "link").symlink_to("/etc")
    (root / "latin.txt").write_bytes(b"caf\xe9 handle\n")
    return root


def search(http: httpx.Client, path: Path, q: str, **options: object) -> dict[str, object]:
    """A content search that succeeds."""
    params = {"q": q, "path": str(path), **options}
    answer = http.get("/files/search", params={k: str(v) for k, v in params.items()})
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    assert body["success"] is True
    assert body["query"] == q
    return body


def keys(body: dict[str, object]) -> set[str]:
    """The files with matches."""
    results = body["results"]
    assert isinstance(results, dict)
    return set(results)


def test_literal_and_case(http: httpx.Client, tree: Path) -> None:
    """A literal search ignores case by default and tells line, column and text."""
    body = search(http, tree, "handle")
    assert keys(body) == {"src/server.go", "src/app.py", "src/odd name.txt", "latin.txt"}
    results = body["results"]
    assert isinstance(results, dict)
    assert results["src/server.go"] == [
        {"line": 2, "column": 7, "text": "\tfunc Handle() {}"},
        {"line": 3, "column": 4, "text": "// handle it"},
    ]
    assert results["latin.txt"] == [{"line": 1, "column": 6, "text": "caf\ufffd handle"}]
    assert body["total_matches"] == 5
    assert body["total_files"] == 4
    assert body["capped"] is False
    exact = search(http, tree, "Handle", case_sensitive="true")
    assert keys(exact) == {"src/server.go"}


def test_options(http: httpx.Client, tree: Path) -> None:
    """Each option reaches ripgrep as what it means."""
    assert keys(search(http, tree, "a.b")) == {"src/odd name.txt"}
    assert search(http, tree, "a.b", regex="true")["total_matches"] == 1
    assert keys(search(http, tree, "handle", whole_word="true", file_types="go,py")) == {
        "src/server.go",
        "src/app.py",
    }
    assert ".hidden" in keys(search(http, tree, "handle", include_hidden="true"))
    assert "debug.log" in keys(search(http, tree, "handle", no_gitignore="true"))
    assert keys(search(http, tree, "handle", ignore_patterns="src,*.txt")) == set()
    assert keys(search(http, tree, "handle", ignore_patterns="!x,src/*.go,latin*")) == {
        "src/app.py",
        "src/odd name.txt",
    }


def test_context_lines_have_no_column(http: httpx.Client, tree: Path) -> None:
    """Lines around a match are told without a column."""
    body = search(http, tree / "src/server.go", "handle it", context_lines=1)
    assert body["results"] == {
        "server.go": [
            {"line": 2, "text": "\tfunc Handle() {}"},
            {"line": 3, "column": 4, "text": "// handle it"},
            {"line": 4, "text": "// tail"},
        ]
    }


def test_a_query_that_looks_like_a_flag_is_text(http: httpx.Client, tree: Path) -> None:
    """Dashes are looked for, not obeyed."""
    assert keys(search(http, tree, "--files")) == {"src/app.py"}
    assert keys(search(http, tree, "--pre=sh")) == set()
    assert keys(search(http, tree, "-")) == {"src/app.py"}


def test_numbers_in_the_text_do_not_confuse(http: httpx.Client, tree: Path) -> None:
    """A line that looks like ripgrep's own output is told as it is."""
    body = search(http, tree, "34:text")
    assert body["results"] == {"src/odd name.txt": [{"line": 2, "column": 4, "text": "12:34:text"}]}


def test_capped(http: httpx.Client, tmp_path: Path) -> None:
    """max_results cuts the search short and says so, also in a huge tree of matches."""
    (tmp_path / "many").write_text("needle\n" * 200_000)
    body = search(http, tmp_path, "needle", max_results=7)
    assert body["total_matches"] == 7
    assert body["capped"] is True
    (tmp_path / "many").write_text("needle\n" * 7)
    assert search(http, tmp_path, "needle", max_results=7)["capped"] is False


def test_long_lines_are_cut(http: httpx.Client, tmp_path: Path) -> None:
    """A line of megabytes does not fill the answer."""
    (tmp_path / "long").write_text("needle" + "x" * 5_000_000 + "\n")
    body = search(http, tmp_path, "needle")
    assert body["total_matches"] == 1
    assert len(str(body)) < 10_000


@pytest.mark.parametrize(
    ("params", "status", "field"),
    [
        ({"path": "/"}, 400, "q"),
        ({"q": "", "path": "/"}, 400, "q"),
        ({"q": "x" * 1001}, 400, "q"),
        ({"q": "(", "regex": "true", "path": "/tmp"}, 400, "q"),
        ({"q": "x", "ignore_patterns": "[", "path": "/tmp"}, 400, "ignore_patterns"),
        ({"q": "x", "timeout": "61"}, 400, "timeout"),
        ({"q": "x", "context_lines": "11"}, 400, "context_lines"),
        ({"q": "x", "max_results": "0"}, 400, "max_results"),
        ({"q": "x", "path": "relative"}, 400, "path"),
        ({"q": "x", "path": "/dev/null"}, 400, "path"),
        ({"q": "x", "path": "/not/there"}, 404, None),
    ],
)
def test_wrong_input(
    http: httpx.Client, params: dict[str, str], status: int, field: str | None
) -> None:
    """Each wrong parameter is named."""
    answer = http.get("/files/search", params=params)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["success"] is False
    if field is not None:
        assert body["code"] == "validation_error"
        assert body["details"]["field"] == field


def test_names(http: httpx.Client, tree: Path) -> None:
    """Files are found by any part of their relative path, in order."""

    def names(**params: str) -> list[str]:
        answer = http.get("/files/search/files", params={"path": str(tree), **params})
        assert answer.status_code == 200, answer.text
        found: list[str] = answer.json()["files"]
        return found

    assert names(q="S") == ["src/app.py", "src/odd name.txt", "src/server.go"]
    assert names(q="S", case_sensitive="true") == []
    assert names(q="src/") == ["src/app.py", "src/odd name.txt", "src/server.go"]
    assert names(q="hidden") == []
    assert names(q="hidden", include_hidden="true") == [".hidden"]
    assert names(q=".", ignore_patterns="src,*.log") == ["latin.txt"]
    assert names(q="link") == ["link"]
    body = http.get("/files/search/files", params={"path": str(tree), "q": ".", "max_results": 1})
    assert body.json()["capped"] is True
    assert body.json()["total_files"] == 1
    for params in ({"q": "x", "path": str(tree / "debug.log")}, {"path": str(tree)}):
        assert http.get("/files/search/files", params=params).status_code == 400


def test_nothing_needs_installing(http: httpx.Client) -> None:
    """Ripgrep is there from the start."""
    version = subprocess.run(["rg", "--version"], capture_output=True, text=True, check=True)
    for method in ("GET", "POST"):
        body = http.request(method, "/files/search/init").json()
        assert body["installed"] is True
        assert body["version"] == version.stdout.splitlines()[0]
        assert body["path"].endswith("/rg")
