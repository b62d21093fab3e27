"""Commands and files through a scripted gateway."""

from __future__ import annotations

import base64

import httpx
import pytest
from tests.unit.client.server import Server, body_of, error, good, sse

from bastide.client import AuthenticationError, CommandFailed, Exited, Output, Started
from bastide.client._tokens import KEEP_SECONDS, Tokens

ACCESS = "/workspace/ws_1/runtime-api-access"
TASK = {"id": "1", "command": ["true"], "status": "exited", "exit_code": 0, "stdout": "hi\n"}


def enabled(server: Server, *tokens: str) -> None:
    """A workspace whose runtime server is on."""
    answers = (good(token=token, enabled=True) for token in tokens)
    server.on("POST", f"{ACCESS}/enable", *answers)


def encoded(text: str) -> dict[str, str]:
    return {"data": base64.b64encode(text.encode()).decode()}


def test_the_runtime_server_is_enabled_when_it_is_off() -> None:
    """The runtime server is enabled in the one call that gives its token."""
    server = Server()
    server.on("POST", f"{ACCESS}/enable", good(enabled=True, token="jwt"))
    server.on("POST", "/exec", httpx.Response(200, json=TASK))
    with server.client() as cloud:
        result = cloud.workspaces.runtime("ws_1").exec.run(["true"])
    assert result.check().stdout == "hi\n"
    last = server.requests[-1]
    assert last.url.host == "gateway.test"
    assert last.headers["Authorization"] == "Bearer jwt"
    assert "X-Client-Secret" not in last.headers


def test_a_token_is_kept_and_replaced_once_on_401() -> None:
    """Calls share a token; a refused one is replaced, and a second refusal is told."""
    server = Server()
    enabled(server, "first", "second", "third")
    refused = error(401, "unauthorized")
    health = httpx.Response(200, json={"status": "ok"})
    server.on("GET", "/health", health, health, refused, health, refused)
    with server.client() as cloud:
        assert cloud.workspaces.runtime("ws_1").healthy()
        assert cloud.workspaces.runtime("ws_1").healthy()
        assert cloud.workspaces.runtime("ws_1").healthy()
        with pytest.raises(AuthenticationError):
            cloud.workspaces.runtime("ws_1").healthy()
    used = [
        request.headers["Authorization"].removeprefix("Bearer ")
        for request in server.requests
        if request.url.path == "/health"
    ]
    assert used == ["first", "first", "first", "second", "second", "third"]


def test_tokens_are_forgotten_before_they_expire() -> None:
    """A kept token is not used after 55 minutes."""
    now = 0.0
    tokens = Tokens(clock=lambda: now)
    assert tokens.get("ws_1") is None
    tokens.keep("ws_1", "t")
    now = KEEP_SECONDS - 1
    assert tokens.get("ws_1") == "t"
    now = KEEP_SECONDS
    assert tokens.get("ws_1") is None


def test_text_runs_in_a_shell_and_a_list_does_not() -> None:
    """The wire says which of the two is meant, and a short timeout is never rounded to none."""
    server = Server()
    enabled(server, "jwt")
    server.on("POST", "/exec", httpx.Response(200, json=TASK))
    with server.client() as cloud:
        runtime = cloud.workspaces.runtime("ws_1")
        runtime.exec.run("a | b", timeout=0.2)
        runtime.exec.run(["sh", "-c", "a | b"], keep_logs=True, ttl=-1)
    first, second = (body_of(request) for request in server.requests[-2:])
    assert first == {"cmd": ["a | b"], "exec_mode": "shell", "timeout_seconds": 1}
    assert second == {
        "cmd": ["sh", "-c", "a | b"], "exec_mode": "direct", "keep_logs": True, "ttl_seconds": -1,
    }  # fmt: skip


def test_check_raises_with_what_was_said() -> None:
    """A code other than 0 raises with the end of standard error."""
    server = Server()
    enabled(server, "jwt")
    server.on("POST", "/exec", httpx.Response(200, json={**TASK, "exit_code": 3, "stderr": "bad"}))
    with server.client() as cloud:
        result = cloud.workspaces.runtime("ws_1").exec.run("x")
        with pytest.raises(CommandFailed, match="code 3: bad"):
            result.check()


def test_a_stream_tells_start_output_and_end() -> None:
    """Events come typed and decoded; unknown ones are left out, and the exit is the last."""
    server = Server()
    enabled(server, "jwt")
    server.on(
        "POST",
        "/exec/stream",
        error(401, "unauthorized"),
        sse(
            ("task_id", {"task_id": "7"}),
            ("stdout", encoded("out")),
            ("later_kind", {"x": 1}),
            ("stderr", encoded("err")),
            ("exit", {"exit_code": 4, "pid": 12}),
            ("stdout", encoded("never")),
        ),
    )
    with (
        server.client() as cloud,
        cloud.workspaces.runtime("ws_1").exec.stream(["x"]) as events,
    ):
        assert list(events) == [
            Started("7"), Output("stdout", b"out"), Output("stderr", b"err"), Exited(4),
        ]  # fmt: skip


def test_a_finished_task_tells_what_it_kept() -> None:
    """A late subscriber gets the kept text of both streams."""
    server = Server()
    enabled(server, "jwt")
    server.on(
        "GET",
        "/exec/stream",
        sse(("output", {"stdout": "é", "stderr": "e"}), ("exit", {"exit_code": 0})),
    )
    with server.client() as cloud, cloud.workspaces.runtime("ws_1").exec.subscribe("7") as events:
        assert list(events) == [
            Output("stdout", "é".encode()), Output("stderr", b"e"), Exited(0),
        ]  # fmt: skip
    assert server.requests[-1].url.params["task_id"] == "7"


def test_tasks_are_listed_fed_and_killed() -> None:
    """The calls about tasks use their documented paths."""
    server = Server()
    enabled(server, "jwt")
    server.on("GET", "/exec", good(tasks=[TASK]))
    server.on("GET", "/exec/1", httpx.Response(200, json=TASK))
    server.on("POST", "/exec/1/input", good(bytes_written=2))
    server.on("DELETE", "/exec/1", good())
    with server.client() as cloud:
        commands = cloud.workspaces.runtime("ws_1").exec
        assert [task.id for task in commands.list()] == ["1"]
        assert commands.get("1").exit_code == 0
        assert commands.write("1", b"\x00\xff") == 2
        assert server.requests[-1].content == b"\x00\xff"
        commands.kill("1")


def test_files_use_their_documented_calls() -> None:
    """Paths, options and answers of the file calls."""
    server = Server()
    enabled(server, "jwt")
    entry = {"name": "a", "path": "/w/a", "type": "file", "size": 2}
    server.on("GET", "/files", good(path="/w", entries=[entry], count=1))
    server.on("GET", "/files/read", good(path="/w/a", content="hi", size=2, lines=1))
    server.on("POST", "/files/write", good(path="/w/a", size=2))
    server.on("GET", "/files/stat", good(**entry, permissions="0644"))
    server.on("POST", "/files/mkdir", good(path="/w"))
    server.on("POST", "/files/delete", good(path="/w"))
    with server.client() as cloud:
        files = cloud.workspaces.runtime("ws_1").files
        assert [item.name for item in files.list("/w", nested=True, max_depth=2)] == ["a"]
        assert dict(server.requests[-1].url.params) == {
            "path": "/w", "nested": "true", "max_depth": "2",
        }  # fmt: skip
        assert files.read("/w/a", start_line=1).content == "hi"
        assert files.write("/w/a", "hi", mode="0600") == 2
        assert body_of(server.requests[-1]) == {
            "path": "/w/a", "content": "hi", "create_dirs": True, "append": False, "mode": "0600",
        }  # fmt: skip
        assert files.stat("/w/a").permissions == "0644"
        files.mkdir("/w")
        files.delete("/w")


async def test_the_async_runtime_is_the_same() -> None:
    """Commands, streams and files through asyncio, a refused token replaced."""
    server = Server()
    enabled(server, "old", "new")
    server.on("POST", "/exec", error(401, "unauthorized"), httpx.Response(200, json=TASK))
    server.on("POST", "/exec/stream", sse(("stdout", encoded("x")), ("exit", {"exit_code": 0})))
    server.on("POST", "/files/write", good(path="/a", size=1))
    async with server.async_client() as cloud:
        runtime = cloud.workspaces.runtime("ws_1")
        assert (await runtime.exec.run("true")).check().exit_code == 0
        async with runtime.exec.stream("true") as events:
            assert [event async for event in events] == [Output("stdout", b"x"), Exited(0)]
        assert await runtime.files.write("/a", "x") == 1
    assert server.requests[-1].headers["Authorization"] == "Bearer new"
