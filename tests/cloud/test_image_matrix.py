"""The whole runtime API, alike in three kinds of image and through both doors.

The images are `debian-12`, one with a busybox userland and musl, and one that is a single static
program; the doors are the gateway, and 10.x:9990 from another workspace.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.agent.wire import Wire, wait_until
from tests.cloud import images
from tests.cloud.cloud import RUNNING, Cloud
from tests.cloud.door import Door, direct, gateway
from websockets.sync.client import connect

from bastide.client import Bastide

pytestmark = pytest.mark.cloud

APP = (Path(__file__).parent / "app.py").read_text()
BUNDLED_PYTHON = "/.bastide/bin/python3.11"
CAPABILITIES = ["files", "exec", "search", "terminals", "ws", "watchers", "transfer", "proxy"]


@dataclass
class Place:
    """A workspace of some image, seen through one door."""

    image: str
    door: Door
    base: str
    tools: tuple[str, ...] = ()
    """What comes before the name of a tool: nothing where tools are found by PATH."""
    shell: str = ""
    """The default shell; empty where there is none."""
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = self.door.http()

    @property
    def url(self) -> str:
        """Base URL."""
        return self.door.url

    @property
    def token(self) -> str:
        """What opens it."""
        return self.door.token

    def get(self, endpoint: str, status: int = 200, /, **query: Any) -> Any:
        """The answer to a GET."""
        return self.ask("GET", endpoint, status, params=query)

    def post(self, endpoint: str, status: int = 200, /, **body: Any) -> Any:
        """The answer to a POST of JSON."""
        return self.ask("POST", endpoint, status, json=body)

    def ask(self, method: str, endpoint: str, status: int, **values: Any) -> Any:
        """The answer, which has this status and the envelope."""
        answer = self.http.request(method, endpoint, **values)
        assert answer.status_code == status, answer.text
        found = answer.json()
        assert (found.get("success") is False) == (status >= 400), found
        return found

    def write(self, name: str, content: str = "x\n", **options: object) -> None:
        """Write a file below the base."""
        values = {"path": f"{self.base}/{name}", "content": content, "create_dirs": True}
        self.ask("POST", "/files/write", 201, json=values | options)

    def run(self, *tool: str, **options: object) -> Any:
        """Run a tool of the image."""
        return self.post("/exec", cmd=[*self.tools, *tool], exec_mode="direct", **options)

    def stream(self, *tool: str, **options: object) -> list[tuple[str, dict[str, Any]]]:
        """Run a tool and take all its events."""
        body = {"cmd": [*self.tools, *tool], "exec_mode": "direct"} | options
        with self.http.stream("POST", "/exec/stream", json=body) as answer:
            return list(events(answer))


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a stream, to its end; `data` of the output events decoded."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = json.loads(line[6:])
            if name in ("stdout", "stderr"):
                data = {"text": base64.b64decode(data["data"]).decode()}
            yield name, data


@pytest.fixture(scope="module")
def client(cloud: Cloud) -> Iterator[Bastide]:
    """A client with the first admin key."""
    with cloud.client() as found:
        yield found


@pytest.fixture(scope="module")
def caller(client: Bastide) -> Iterator[str]:
    """The workspace that goes straight to the others."""
    made = client.workspaces.create("debian-12", memory_mb=128, disk_size_mb=128)
    yield made.id
    client.workspaces.delete(made.id)


@pytest.fixture(scope="module", params=["debian-12", images.ALPINE_LIKE, images.SINGLE])
def workspace(
    request: pytest.FixtureRequest, cloud: Cloud, client: Bastide
) -> Iterator[tuple[str, str]]:
    """A ready workspace of each image: image and id."""
    image: str = request.param
    if image in images.TREES:
        images.ensure(image, cloud.settings.state_dir)
    made = client.workspaces.create(
        image, memory_mb=256, disk_size_mb=256, env={"GREETING": "hello from env"}
    )
    yield image, made.id
    client.workspaces.delete(made.id)
    if image in images.TREES and os.environ.get(RUNNING) == "1":
        (cloud.settings.state_dir / "images" / f"{image}.json").unlink()


@pytest.fixture(scope="module", params=["gateway", "direct"])
def place(
    request: pytest.FixtureRequest, cloud: Cloud, workspace: tuple[str, str], caller: str
) -> Iterator[Place]:
    """Each workspace through each door."""
    image, identifier = workspace
    with ExitStack() as stack:
        if request.param == "gateway":
            door = gateway(cloud, identifier)
        else:
            door = stack.enter_context(direct(cloud, identifier, caller))
        tools = ("/busybox",) if image == images.SINGLE else ()
        shells = {"debian-12": "/bin/bash", images.ALPINE_LIKE: "/bin/ash", images.SINGLE: ""}
        found = Place(image, door, f"/root/{request.param}", tools, shells[image])
        stack.callback(found.http.close)
        yield found


def test_info(place: Place) -> None:
    """Health, description, targets, desktop and the API's own document."""
    assert place.get("/health") == {"status": "ok"}
    info = place.get("/runtime")
    assert (info["os"], info["arch"]) == ("linux", "x86_64")
    assert (info["home"], info["shell"]) == ("/root", place.shell)
    assert info["cpus"] >= 1
    assert info["capabilities"] == CAPABILITIES
    targets = place.get("/runtimes")
    assert targets["default_target"] == "default"
    assert [(one["id"], one["available"]) for one in targets["targets"]] == [("default", True)]
    assert place.get("/runtimes/local/health") == {"status": "ok"}
    place.get("/runtimes/other/health", 404)
    assert place.get("/desktop/status")["supported"] is False
    document = place.get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    assert "/exec/stream" in document["paths"]
    assert place.http.get("/health", headers={"Authorization": "Bearer no"}).status_code == 401


def test_files_are_written_and_read(place: Place) -> None:
    """Write, append, mode, ranges, line numbers, stat and delete; wrong requests are told."""
    path = f"{place.base}/rw/note.txt"
    place.write("rw/note.txt", "grüße\nzwei\ndrei\n", mode="0640")
    place.write("rw/note.txt", "vier\n", append=True)
    whole = place.get("/files/read", path=path)
    assert whole["content"] == "grüße\nzwei\ndrei\nvier\n"
    assert (whole["size"], whole["lines"], whole["extension"]) == (23, 4, ".txt")
    part = place.get("/files/read", path=path, start_line=2, end_line=3, with_line_numbers="true")
    assert (part["content"], part["start_line"], part["end_line"]) == ("2\tzwei\n3\tdrei\n", 2, 3)
    stat = place.get("/files/stat", path=path)
    assert (stat["type"], stat["permissions"], stat["size"]) == ("file", "0640", 23)
    place.write("rw/note.txt", "neu")
    assert place.get("/files/stat", path=path)["permissions"] == "0640"
    place.post("/files/mkdir", 201, path=f"{place.base}/rw/a/b", mode="0700")
    assert place.get("/files/stat", path=f"{place.base}/rw/a/b")["permissions"] == "0700"
    for wrong, status in (("/nothing/here", 404), (f"{place.base}/rw", 400), ("relative", 400)):
        place.get("/files/read", status, path=wrong)
    values = {"path": f"{place.base}/no/such/file", "content": ""}
    place.ask("POST", "/files/write", 404, json=values)
    place.ask("DELETE", "/files/delete", 200, params={"path": f"{place.base}/rw"})
    place.get("/files/stat", 404, path=path)


@pytest.mark.parametrize(
    "spelling", ["/", "//", "/etc", "/etc/", "//etc//", "/./etc", "/root/../etc", "/proc/../etc/."]
)
def test_protected_paths_stay(place: Place, spelling: str) -> None:
    """The protected list holds under every spelling."""
    place.post("/files/mkdir", 201, path="/root")
    place.post("/files/delete", 403, path=spelling)
    assert place.get("/files/stat", path="/etc")["type"] == "directory"


def tree(place: Place) -> str:
    """A small project; its path."""
    files = {
        "tree/src/main.py": "print('hello')\n", "tree/src/deep/util.js": "let x = 1;\n",
        "tree/README.md": "# hello\n", "tree/build.log": "ignored\n", "tree/.hidden": "hidden\n",
        "tree/.gitignore": "*.log\n!keep.log\n/out/\n", "tree/keep.log": "kept\n",
        "tree/out/x.bin": "x\n", "tree/src/out/y.txt": "y\n",
    }  # fmt: skip
    for name, content in files.items():
        place.write(name, content)
    return f"{place.base}/tree"


def names(answer: Any) -> set[str]:
    """The paths of a flat list, without their beginning."""
    return {entry["path"].partition("/tree/")[2] for entry in answer["entries"]}


def test_files_are_listed(place: Place) -> None:
    """Every option of a list, and the stream of the same."""
    path = tree(place)
    kept = {
        "src", "src/main.py", "src/deep", "src/deep/util.js", "src/out", "src/out/y.txt",
        "README.md", ".hidden", ".gitignore", "keep.log",
    }  # fmt: skip

    def flat(**options: object) -> set[str]:
        return names(place.get("/files", path=path, nested=True, flatten=True, **options))

    assert flat() == kept
    assert flat(use_gitignore=False) == kept | {"build.log", "out", "out/x.bin"}
    assert flat(ignore_patterns="*.md,deep") == kept - {"README.md", "src/deep", "src/deep/util.js"}
    assert flat(max_depth=1) == {name for name in kept if "/" not in name}
    assert flat(include_ext="py,.js") == {"src/main.py", "src/deep/util.js"}
    assert flat(path_filter="MAIN") == {"src/main.py"}
    assert {"src/main.py", "src/deep/util.js"} <= flat(code_files_only=True) < kept
    nested = place.get("/files", path=path, nested=True)["entries"]
    source = next(entry for entry in nested if entry["name"] == "src")
    assert [child["name"] for child in source["children"]] == ["deep", "main.py", "out"]
    light = place.get("/files", path=path, light=True)["entries"]
    assert not any("size" in entry or "modified" in entry for entry in light)
    rich = place.get(
        "/files", path=f"{path}/src", include_hash=True, include_content=True,
        include_extensions=True,
    )["entries"]  # fmt: skip
    main = next(entry for entry in rich if entry["name"] == "main.py")
    assert main["content"] == "print('hello')\n"
    assert (main["extension"], len(main["hash"]), main["size"]) == (".py", 64, 15)
    poor = place.get("/files", path=path, include_content=True, max_content_budget=5)
    assert [entry["name"] for entry in poor["entries"] if "content" in entry] == ["keep.log"]
    with place.http.stream("GET", "/files/stream", params={"path": path}) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert lines[0] == {"event": "start", "path": path}
    assert lines[-1] == {"event": "done", "count": len(kept)}
    assert {line["path"][len(path) + 1 :] for line in lines[1:-1]} == kept
    place.get("/files", 404, path=f"{path}/nothing")


def test_search(place: Place) -> None:
    """Content with context, columns and globs; text that looks like an option; names."""
    path = tree(place)
    found = place.get("/files/search", q="HELLO", path=path)
    assert found["total_matches"] == 2
    assert found["total_files"] == 2
    assert place.get("/files/search", q="HELLO", path=path, case_sensitive=True)["results"] == {}
    one = place.get("/files/search", q="he.lo", path=path, regex=True, file_types="py")
    [(file, [match])] = one["results"].items()
    assert file.endswith("main.py")
    assert (match["line"], match["column"], match["text"]) == (1, 8, "print('hello')")
    place.write("tree/flags.txt", "before\n--files -e x\nafter\n")
    flag = place.get("/files/search", q="--files -e x", path=path, context_lines=1)
    assert [entry["text"] for entry in flag["results"]["flags.txt"]] == [
        "before", "--files -e x", "after",
    ]  # fmt: skip
    ignored = {"q": "ignored", "path": path}
    assert place.get("/files/search", **ignored)["total_matches"] == 0
    assert place.get("/files/search", **ignored, no_gitignore=True)["total_matches"] == 1
    assert place.get("/files/search", q="hidden", path=path, include_hidden=True)["total_files"]
    assert place.get("/files/search", q="e", path=path, max_results=1)["capped"] is True
    assert place.get("/files/search/files", q="util", path=path)["files"] == ["src/deep/util.js"]
    ready = place.ask("POST", "/files/search/init", 200)
    assert ready["version"].startswith("ripgrep")
    assert ready == place.get("/files/search/init") | ready
    place.get("/files/search", 400, q="", path=path)
    place.get("/files/search", 400, q="(", path=path, regex=True)


def test_commands(place: Place) -> None:
    """Argv as given, environment, exit codes, streams, input, time-outs, records."""
    assert place.run("echo", "a b", "$HOME", "*")["stdout"] == "a b $HOME *\n"
    done = place.run("env")
    assert {"GREETING=hello from env", "HOME=/root"} <= set(done["stdout"].splitlines())
    failed = place.run("cat", "/no/such/file")
    assert failed["exit_code"] == 1
    assert failed["status"] == "exited"
    assert "/no/such/file" in failed["stderr"]
    missing = place.ask("POST", "/exec", 400, json={"cmd": ["no-such-program"]})
    assert missing["code"] == "exec_failed"
    late = place.run("sleep", "60", timeout_seconds=1)
    assert (late["status"], late["exit_code"]) == ("failed", 124)
    seen = place.stream("echo", "streamed")
    assert [name for name, _ in seen] == ["task_id", "stdout", "exit"]
    assert seen[1][1]["text"] == "streamed\n"
    body = {"cmd": [*place.tools, "cat"], "keep_logs": True}
    with place.http.stream("POST", "/exec/stream", json=body) as answer:
        following = events(answer)
        task = next(following)[1]["task_id"]
        assert place.get(f"/exec/{task}")["status"] == "running"
        place.ask("POST", f"/exec/{task}/input", 200, content=b"typed\n", params={"eof": "true"})
        rest = list(following)
    assert [data.get("text") for _, data in rest] == ["typed\n", None]
    with place.http.stream("GET", "/exec/stream", params={"task_id": task}) as answer:
        assert next(events(answer)) == ("output", {"stdout": "typed\n", "stderr": ""})
    assert task in [one["id"] for one in place.get("/exec")["tasks"]]
    place.ask("DELETE", f"/exec/{task}", 200)
    place.get(f"/exec/{task}", 404)


def test_shell_commands(place: Place) -> None:
    """A shell line runs where there is /bin/sh; elsewhere the error names what is missing."""
    body = {"cmd": ["echo one | cat; exit 3"]}
    if place.shell:
        done = place.post("/exec", **body)
        assert (done["stdout"], done["exit_code"]) == ("one\n", 3)
        assert place.post("/exec", cmd=["sh", "-c", "echo $((6 * 7))"])["stdout"] == "42\n"
    else:
        told = place.ask("POST", "/exec", 400, json=body)
        assert told["code"] == "exec_failed"
        assert "/bin/sh" in told["message"]
        assert place.run("sh", "-c", "echo $((6 * 7))")["stdout"] == "42\n"


def test_terminals(place: Place) -> None:
    """The default shell or a clear refusal; sizes, input, exit, scrollback, takeover."""
    if place.shell:
        opened = place.ask("POST", "/terminals", 201, json={"cols": 100, "rows": 30})
        assert opened["command"] == [place.shell]
    else:
        told = place.ask("POST", "/terminals", 400, json={})
        assert told["code"] == "no_shell"
        body = {"cmd": [*place.tools, "sh"], "cols": 100, "rows": 30}
        opened = place.ask("POST", "/terminals", 201, json=body)
    number = int(opened["id"])
    stty = " ".join((*place.tools, "stty", "size"))
    with Wire(place) as wire:
        assert "30 100" in wire.run(number, stty)
        wire.say(channel="terminal", type="resize", id=str(number), cols=121, rows=42)
        assert "42 121" in wire.run(number, stty)
        assert "xterm-256color" in wire.run(number, "echo $TERM")
        with Wire(place) as newer:
            wait_until(lambda: closed(wire))
            assert wire.socket.close_code == 4001
            newer.until_output(number, "42 121")  # the scrollback comes again
            newer.type(number, "exit 7\n")
            assert newer.until_text(type="exit", id=str(number))["code"] == 7
    back = place.get(f"/terminals/{number}/scrollback", bytes=4096)
    assert b"42 121" in base64.b64decode(back["scrollback"])
    assert (back["alive"], back["exit_code"]) == (False, 7)
    assert [int(one["id"]) for one in place.get("/terminals")["terminals"]] == [number]
    place.ask("DELETE", f"/terminals/{number}", 200)
    place.get(f"/terminals/{number}/scrollback", 404)


def closed(wire: Wire) -> bool:
    """Receive what there is; whether the other side has closed."""
    try:
        wire.socket.recv(timeout=0)
    except TimeoutError:
        pass
    except Exception:  # noqa: BLE001  (whatever ends it)
        return True
    return False


def test_watchers(place: Place) -> None:
    """New directories are followed; moves and excludes are told as they should be."""
    place.write("watched/first")
    root = f"{place.base}/watched"
    made = place.ask("POST", "/watchers", 201, json={"path": root, "excludes": ["*.tmp"]})
    assert made["watcher"]["id"] == made["id"]
    with Wire(place) as wire:
        wire.until_text(type="ready", watcher_id=made["id"])
        place.write("watched/new/deep/file")
        wire.until_text(type="change", path=f"{root}/new/deep/file", op="create")
        place.write("watched/skipped.tmp")
        place.run("mv", f"{root}/new", f"{root}/moved")
        wire.until_text(type="change", path=f"{root}/new", op="rename")
        wire.until_text(type="change", path=f"{root}/moved/deep/file", op="create")
        place.write("watched/moved/deep/file", "more\n", append=True)
        wire.until_text(type="change", path=f"{root}/moved/deep/file", op="write")
        place.ask("DELETE", "/files/delete", 200, params={"path": f"{root}/first"})
        wire.until_text(type="change", path=f"{root}/first", op="remove")
        assert not any("skipped" in str(text.get("path")) for text in wire.texts)
    assert [one["id"] for one in place.get("/watchers")["watchers"]] == [made["id"]]
    place.ask("DELETE", f"/watchers/{made['id']}", 200)
    place.get(f"/watchers/{made['id']}", 404)


def packed(*entries: tuple[str, bytes | str, int]) -> bytes:
    """A tar.gz: bytes are files, a string is the target of a link; with a mode."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content, mode in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = mode, 1_000_000_000
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_transfer(place: Place) -> None:
    """Up and down with modes, times and links; nothing leaves dest; a broken upload harms none."""
    dest = f"{place.base}/up"
    big = os.urandom(3_000_000)
    data = packed(("a/run", b"#!x\n", 0o755), ("a/link", "run", 0o777), ("a/big", big, 0o600))

    def upload(content: bytes, status: int = 200, into: str = dest) -> Any:
        query = {"dest": into}
        return place.ask(
            "POST", "/files/transfer/upload", status, params=query, content=content,
            headers={"Content-Type": "application/gzip"},
        )  # fmt: skip

    assert upload(data) == {"success": True, "dest": dest, "files_extracted": 3}
    link = place.get("/files/stat", path=f"{dest}/a/link")
    assert (link["type"], link["symlink_target"]) == ("symlink", "run")
    assert place.get("/files/stat", path=f"{dest}/a/run")["permissions"] == "0755"
    for hostile in (
        packed(("../evil", b"x", 0o644)),
        packed((f"{place.base}/evil", b"x", 0o644)),
        packed(("l", place.base, 0o777), ("l/evil", b"x", 0o644)),
    ):
        upload(hostile, 400)
        place.get("/files/stat", 404, path=f"{place.base}/evil")
    broken = packed(("a/run", os.urandom(100_000), 0o644))
    upload(broken[: len(broken) // 2], 400)
    assert place.get("/files/read", path=f"{dest}/a/run")["content"] == "#!x\n"
    body = {"paths": [f"{dest}/a"], "exclude_patterns": ["ru*"]}
    answer = place.http.post("/files/transfer/download", json=body)
    assert answer.status_code == 200
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(answer.content))) as archive:
        assert set(archive.getnames()) == {"a", "a/big", "a/link"}
        taken = archive.extractfile("a/big")
        assert taken is not None
        assert taken.read() == big
        assert archive.getmember("a/big").mtime == 1_000_000_000


@pytest.fixture(scope="module")
def app(place: Place) -> Iterator[int]:
    """The port of an app in the workspace."""
    port = 3000 if place.base.endswith("gateway") else 3001
    body = {"cmd": [BUNDLED_PYTHON, "-I", "-S", "-c", APP, str(port)]}
    with place.http.stream("POST", "/exec/stream", json=body) as answer:
        following = events(answer)
        task = next(following)[1]["task_id"]
        assert next(following) == ("stdout", {"text": "listening\n"})
    yield port
    place.ask("DELETE", f"/exec/{task}", 200)


def test_proxy(place: Place, app: int) -> None:
    """HTTP by header, query and path; events; a WebSocket; no credential; loopback only."""
    headers = {"X-Oblien-Proxy-Target": str(app)}
    seen = place.http.post("/proxy/api?x=1", headers=headers, content=b"body").json()
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/api?x=1", "body")
    assert "authorization" not in seen["headers"]
    assert "x-oblien-proxy-target" not in seen["headers"]
    query = place.http.get(f"/proxy/q?x_oblien_target=127.0.0.1:{app}&token=none&y=2").json()
    assert query["path"] == "/q?y=2"
    assert place.http.get(f"/proxy/{app}/by/path").json()["path"] == "/by/path"
    answer = place.http.get("/proxy/status/401", headers=headers)
    assert (answer.status_code, answer.json()["path"]) == (401, "/status/401")
    stream = place.http.get("/proxy/events", headers=headers)
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    address = f"ws{place.url.removeprefix('http')}/proxy/socket"
    with connect(f"{address}?token={place.token}&x_oblien_target={app}") as socket:
        socket.send("there")
        assert socket.recv(timeout=20) == "echo there"
    for target in ("10.0.0.1:80", "169.254.169.254:80", "0x0a000001:80", "[::ffff:10.0.0.1]:80"):
        place.ask("GET", "/proxy/x", 403, headers={"X-Oblien-Proxy-Target": target})
    told = place.ask("GET", "/proxy/x", 502, headers={"X-Oblien-Proxy-Target": "9"})
    assert "127.0.0.1:9 " in told["message"]
    place.ask("GET", "/proxy/x", 400)
