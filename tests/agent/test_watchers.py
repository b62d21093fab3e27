"""Watchers of directory trees (spec runtime 9)."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.agent.conftest import Agent, start_agent
from tests.agent.wire import Wire, wait_until


@pytest.fixture(autouse=True)
def no_watchers(http: httpx.Client) -> Iterator[None]:
    """Every test leaves the shared agent without watchers."""
    yield
    for watcher in http.get("/watchers").json()["watchers"]:
        http.delete(f"/watchers/{watcher['id']}")


def watch(http: httpx.Client, root: Path, **values: object) -> dict[str, Any]:
    """Make a watcher; its description."""
    answer = http.post("/watchers", json={"path": str(root), **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()["watcher"]
    return found


def changes(wire: Wire) -> list[tuple[str, str]]:
    """The changes told so far."""
    return [(text["path"], text["op"]) for text in wire.texts if text["type"] == "change"]


def until_change(wire: Wire, path: Path, op: str) -> None:
    """Receive until a change of a path is told."""
    wire.until_text(type="change", path=str(path), op=op)


def test_shape_of_a_watcher(http: httpx.Client, tmp_path: Path) -> None:
    """Create and get answer bare and under `watcher`; list, delete and 404 are as published."""
    (tmp_path / "a/b").mkdir(parents=True)
    answer = http.post("/watchers", json={"root": f"{tmp_path}//x/../", "exclude": ["*.log"]})
    assert answer.status_code == 201
    body = answer.json()
    watcher = body.pop("watcher")
    assert body == {"success": True, **watcher}
    assert watcher["root"] == str(tmp_path)
    assert watcher["dirs"] == watcher["dir_count"] == 3
    assert (watcher["active"], watcher["complete"]) == (True, True)
    assert {"node_modules", ".git", "*~", "*.log"} <= set(watcher["excludes"])
    name = watcher["id"]
    assert http.get(f"/watchers/{name}").json() == answer.json()
    assert http.get("/watchers").json() == {"success": True, "watchers": [watcher]}
    assert http.delete(f"/watchers/{name}").json() == {"success": True, "watcher_id": name}
    assert http.delete(f"/watchers/{name}").status_code == 404
    assert http.get(f"/watchers/{name}").status_code == 404


def test_wrong_input(http: httpx.Client, tmp_path: Path) -> None:
    """Every wrong request is a 4xx that leaves no watcher behind."""
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    cases: list[tuple[dict[str, object], int]] = [
        ({}, 400), ({"path": "relative"}, 400), ({"path": 7}, 400), ({"path": "/a\0b"}, 400),
        ({"path": str(tmp_path / "file")}, 400), ({"path": str(tmp_path / "pipe")}, 400),
        ({"path": str(tmp_path / "nowhere")}, 404), ({"path": "/" + "x" * 300}, 400),
        ({"path": str(tmp_path), "excludes": "x"}, 400),
        ({"path": str(tmp_path), "excludes": ["x"] * 101}, 400),
        ({"path": str(tmp_path), "excludes": ["x" * 257]}, 400),
    ]  # fmt: skip
    for body, status in cases:
        answer = http.post("/watchers", json=body)
        assert answer.status_code == status, (body, answer.text)
        assert answer.json()["success"] is False
    assert http.get("/watchers").json()["watchers"] == []


def test_five_is_the_limit(http: httpx.Client, tmp_path: Path) -> None:
    """The sixth watcher is a 409; deleting one makes room."""
    names = [watch(http, tmp_path)["id"] for _ in range(5)]
    answer = http.post("/watchers", json={"path": str(tmp_path)})
    assert (answer.status_code, answer.json()["code"]) == (409, "watcher_limit")
    http.delete(f"/watchers/{names[2]}")
    assert watch(http, tmp_path)["id"] not in names


def test_operations(http: httpx.Client, agent: Agent, tmp_path: Path) -> None:
    """create, write, remove and rename are told with absolute paths, and `ready` comes first."""
    with Wire(agent) as wire:
        name = watch(http, tmp_path)["id"]
        assert wire.until_text(type="ready") == {
            "channel": "watcher", "type": "ready", "watcher_id": name, "root": str(tmp_path),
            "dirs": 1,
        }  # fmt: skip
        file = tmp_path / "file ünï"
        file.touch()
        until_change(wire, file, "create")
        file.write_text("x")
        until_change(wire, file, "write")
        file.rename(tmp_path / "other")
        until_change(wire, file, "rename")
        until_change(wire, tmp_path / "other", "create")
        (tmp_path / "other").unlink()
        until_change(wire, tmp_path / "other", "remove")
        (tmp_path / "link").symlink_to("/etc")
        until_change(wire, tmp_path / "link", "create")
        (tmp_path / "last").touch()
        (tmp_path / "last").unlink()
        until_change(wire, tmp_path / "last", "remove")
        assert (str(tmp_path / "last"), "create") not in changes(wire)
        assert all(text["watcher_id"] == name for text in wire.texts)


def test_names_that_are_not_utf8(http: httpx.Client, agent: Agent, tmp_path: Path) -> None:
    """Such a name comes as lone surrogates, which name the same bytes again."""
    watch(http, tmp_path)
    raw = os.fsencode(tmp_path) + b"/\xff\xfe"
    with Wire(agent) as wire:
        wire.until_text(type="ready")
        os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
        text = wire.until_text(type="change")
        assert os.fsencode(text["path"]) == raw


def test_no_file_in_new_directories_is_missed(
    http: httpx.Client, agent: Agent, tmp_path: Path
) -> None:
    """A file made at once in nested new directories is told, every time."""
    watch(http, tmp_path)
    with Wire(agent) as wire:
        for number in range(300):
            folder = tmp_path / f"a{number}/b/c/d"
            folder.mkdir(parents=True)
            (folder / "file").touch()
        wanted = {(f"{tmp_path}/a{number}/b/c/d/file", "create") for number in range(300)}
        wire.until(lambda: wanted <= set(changes(wire)))
    dirs = http.get("/watchers").json()["watchers"][0]["dirs"]
    assert dirs == 1 + 4 * 300


def test_directories_moved_in_around_and_out(
    http: httpx.Client, agent: Agent, tmp_path: Path
) -> None:
    """What a moved tree holds is told as created under its new name, and followed there only."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (outside / "tree/deep").mkdir(parents=True)
    (outside / "tree/deep/file").touch()
    watch(http, root)
    with Wire(agent) as wire:
        (outside / "tree").rename(root / "tree")
        until_change(wire, root / "tree/deep/file", "create")
        (root / "tree").rename(root / "again")
        until_change(wire, root / "tree", "rename")
        until_change(wire, root / "again/deep/file", "create")
        (root / "again/deep/file").write_text("x")
        until_change(wire, root / "again/deep/file", "write")
        (root / "again").rename(outside / "gone")
        until_change(wire, root / "again", "rename")
        wait_until(lambda: http.get("/watchers").json()["watchers"][0]["dirs"] == 1)
        before = len(changes(wire))
        (outside / "gone/deep/file").write_text("unseen")
        (root / "last").touch()
        until_change(wire, root / "last", "create")
        assert changes(wire)[before:] == [(str(root / "last"), "create")]


def test_a_tree_removed_and_made_again(http: httpx.Client, agent: Agent, tmp_path: Path) -> None:
    """Directories with the same name as removed ones are followed as well."""
    watch(http, tmp_path)
    with Wire(agent) as wire:
        for number in range(20):
            (tmp_path / "a/b").mkdir(parents=True)
            (tmp_path / f"a/b/{number}").touch()
            until_change(wire, tmp_path / f"a/b/{number}", "create")
            shutil.rmtree(tmp_path / "a")
        (tmp_path / "end").touch()
        until_change(wire, tmp_path / "end", "create")
        wait_until(lambda: http.get("/watchers").json()["watchers"][0]["dirs"] == 1)


def test_excludes(http: httpx.Client, agent: Agent, tmp_path: Path) -> None:
    """Default and own globs leave out names at any depth, and paths below the root."""
    (tmp_path / "node_modules/x").mkdir(parents=True)
    (tmp_path / "src/gen").mkdir(parents=True)
    (tmp_path / "gen").mkdir()
    watcher = watch(http, tmp_path, excludes=["*.log", "src/gen", f"{tmp_path}/top", "tmp-?/"])
    assert watcher["dirs"] == 3  # root, src, gen
    with Wire(agent) as wire:
        wire.until_text(type="ready")
        for name in ("node_modules/x/y", "a.log", "src/b.log", "src/gen/c", "top", "x.swp", "y~"):
            (tmp_path / name).touch()
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git/HEAD").touch()
        (tmp_path / "tmp-1").mkdir()
        (tmp_path / "tmp-1/file").touch()
        (tmp_path / "src/top").touch()
        (tmp_path / "gen/told").touch()
        until_change(wire, tmp_path / "gen/told", "create")
        assert {path for path, _ in changes(wire)} == {
            str(tmp_path / "src/top"), str(tmp_path / "gen/told"),
        }  # fmt: skip


def test_events_go_to_the_present_connection_only(
    http: httpx.Client, agent: Agent, tmp_path: Path
) -> None:
    """What happens while nobody is connected is not kept; `ready` comes with each connection."""
    watch(http, tmp_path)
    with Wire(agent) as wire:
        wire.until_text(type="ready")
    (tmp_path / "unseen").mkdir()
    wait_until(lambda: http.get("/watchers").json()["watchers"][0]["dirs"] == 2)
    with Wire(agent) as wire:
        assert wire.until_text(type="ready")["dirs"] == 2
        (tmp_path / "unseen/seen").touch()
        until_change(wire, tmp_path / "unseen/seen", "create")


def test_two_watchers_tell_for_themselves(http: httpx.Client, agent: Agent, tmp_path: Path) -> None:
    """A change below two roots is told by both, each with its own id."""
    (tmp_path / "sub").mkdir()
    names = [watch(http, tmp_path)["id"], watch(http, tmp_path / "sub")["id"]]
    with Wire(agent) as wire:
        (tmp_path / "sub/file").touch()
        for name in names:
            wire.until_text(
                type="change", watcher_id=name, path=str(tmp_path / "sub/file"), op="create"
            )


@pytest.mark.parametrize("how", ["remove", "rename"])
def test_the_root_goes_away(http: httpx.Client, agent: Agent, tmp_path: Path, how: str) -> None:
    """The end of the root is told, and the watcher is there but not active."""
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    name = watch(http, root)["id"]
    with Wire(agent) as wire:
        wire.until_text(type="ready")
        if how == "remove":
            shutil.rmtree(root)
        else:
            root.rename(tmp_path / "elsewhere")
        until_change(wire, root, how)
    wait_until(lambda: http.get(f"/watchers/{name}").json()["active"] is False)
    assert http.get(f"/watchers/{name}").json()["dirs"] == 0
    assert http.delete(f"/watchers/{name}").status_code == 200


def test_overflow(tmp_path: Path) -> None:
    """Lost events are told, and directories made meanwhile are watched after."""
    running = start_agent(tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    try:
        with running.client() as http, Wire(running) as wire:
            watch(http, root)
            wire.until_text(type="ready")
            limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
            os.kill(running.process.pid, signal.SIGSTOP)
            try:
                for number in range(limit // 2 + 100):
                    os.close(os.open(root / f"f{number}", os.O_CREAT))
                    (root / f"f{number}").unlink()
                (root / "late/deep").mkdir(parents=True)
            finally:
                os.kill(running.process.pid, signal.SIGCONT)
            text = wire.until_text(type="overflow")
            assert text["message"] == "Event queue overflow, some events may have been lost"
            wait_until(lambda: http.get("/watchers").json()["watchers"][0]["dirs"] == 3)
            (root / "late/deep/file").touch()
            until_change(wire, root / "late/deep/file", "create")
            assert running.memory_kib() < 40 * 1024
    finally:
        running.stop()


def test_the_limit_of_the_kernel(tmp_path: Path) -> None:
    """It is told in words: at creation with 409, later on the WebSocket and in the description."""
    script = 'echo 20 > /proc/sys/user/max_inotify_watches && exec "$@"'
    running = start_agent(
        tmp_path, wrapper=["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    )
    root = tmp_path / "root"
    try:
        with running.client() as http, Wire(running) as wire:
            for number in range(30):
                (root / f"d{number}").mkdir(parents=True)
            answer = http.post("/watchers", json={"path": str(root)})
            assert (answer.status_code, answer.json()["code"]) == (409, "watch_limit")
            assert "max_user_watches" in answer.json()["message"]
            assert http.get("/watchers").json()["watchers"] == []
            shutil.rmtree(root)
            (root / "first").mkdir(parents=True)
            name = watch(http, root)["id"]
            for number in range(30):
                (root / f"d{number}").mkdir()
            text = wire.until_text(type="overflow", watcher_id=name)
            assert "max_user_watches" in text["message"]
            watcher = http.get(f"/watchers/{name}").json()
            assert (watcher["active"], watcher["complete"]) == (True, False)
            assert "max_user_watches" in watcher["notice"]
            (root / "first/file").touch()
            until_change(wire, root / "first/file", "create")
        with Wire(running) as wire:
            wire.until_text(type="overflow", watcher_id=name)
    finally:
        running.stop()


def test_directories_swapped_for_symlinks(http: httpx.Client, agent: Agent, tmp_path: Path) -> None:
    """A program that swaps directories for symlinks never gets anything outside watched."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (outside / "sub/below").mkdir(parents=True)
    watch(http, root)
    stop = threading.Event()

    def swap() -> None:
        """Make a tree, and put a symlink in the place of its middle, over and over."""
        number = 0
        while not stop.is_set():
            folder = root / f"x{number % 7}"
            (folder / "sub/below").mkdir(parents=True, exist_ok=True)
            folder.rename(root / "aside")
            folder.symlink_to(outside)
            shutil.rmtree(root / "aside")
            folder.unlink()
            number += 1

    thread = threading.Thread(target=swap)
    with Wire(agent) as wire:
        thread.start()
        try:
            for number in range(100):
                (outside / f"sub/secret-{number}").touch()
                (outside / f"sub/below/secret-{number}").touch()
                (root / f"mark-{number}").touch()
                until_change(wire, root / f"mark-{number}", "create")
        finally:
            stop.set()
            thread.join()
        for number in range(7):
            (root / f"x{number}").symlink_to(outside)
        (root / "end").touch()
        until_change(wire, root / "end", "create")
        (outside / "sub/secret-last").touch()
        (root / "last").touch()
        until_change(wire, root / "last", "create")
        assert not [path for path, _ in changes(wire) if "secret" in path]
    assert http.get("/watchers").json()["watchers"][0]["dirs"] == 1


def test_a_slow_client_does_not_cost_memory(
    http: httpx.Client, agent: Agent, tmp_path: Path
) -> None:
    """A storm of changes with and without a reader stays within bounds."""
    watch(http, tmp_path)
    with Wire(agent) as wire:
        wire.until_text(type="ready")
        for number in range(20_000):
            (tmp_path / f"{'n' * 100}{number}").touch()
        (tmp_path / "end").touch()
        wire.until(
            lambda: (
                wire.texts[-1]["type"] == "overflow"
                or wire.texts[-1].get("path") == str(tmp_path / "end")
            )
        )
    assert agent.memory_kib() < 40 * 1024


def test_a_deep_and_an_endless_tree(http: httpx.Client, tmp_path: Path) -> None:
    """Very deep trees are watched down to a bound; /proc and /sys are not gone into."""
    (tmp_path / "/".join("d" * 150)).mkdir(parents=True)
    assert watch(http, tmp_path)["dirs"] == 65
    listed = watch(http, Path("/"), excludes=["/[!ps]*", "/p[!r]*", "/s[!y]*"])
    assert listed["dirs"] < 100


def test_descriptors_do_not_leak(http: httpx.Client, agent: Agent, tmp_path: Path) -> None:
    """Watchers that are made, refused and deleted leave no descriptor behind."""
    (tmp_path / "a/b/c").mkdir(parents=True)

    def count() -> int:
        return len(list(Path(f"/proc/{agent.process.pid}/fd").iterdir()))

    http.delete(f"/watchers/{watch(http, tmp_path)['id']}")
    before = count()
    for _ in range(20):
        http.post("/watchers", json={"path": str(tmp_path / "nowhere")})
        http.delete(f"/watchers/{watch(http, tmp_path)['id']}")
    wait_until(lambda: count() == before)
