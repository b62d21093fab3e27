"""Archives through a scripted server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.unit.client.server import Server, body_of, good

from bastide.client import Archive, ArchiveFailed, ConflictError, Operation, WaitTimeout

PATH = "/workspace/ws_1/archives"


def archive(status: str, **more: Any) -> httpx.Response:
    """An archive as the API shows it."""
    shown = {"version": 3, "status": status, "workspace_id": "ws_1", "sha256": "ab", **more}
    return good(**shown, archive=shown)


def streamed(status: int, content: bytes) -> httpx.Response:
    """A body that is read as it comes."""
    return httpx.Response(status, stream=httpx.ByteStream(content))


def test_creating_follows_it_to_the_end() -> None:
    """What was given is sent; each step is told; the ready one is the result."""
    server = Server()
    server.on("POST", PATH, archive("creating"))
    server.on("GET", f"{PATH}/3", archive("creating", message="5 MiB"), archive("ready"))
    told: list[Archive] = []
    with server.client() as cloud:
        made = cloud.workspaces.archives.create(
            "ws_1", 3, paths=["/etc"], excludes=["*.log"], on_change=told.append
        )
    assert made.status == "ready"
    assert [one.message for one in told] == [None, "5 MiB"]
    assert body_of(server.requests[0]) == {
        "version": 3,
        "vm_paths": ["/etc"],
        "exclude_vm_paths": ["*.log"],
        "wait": False,
    }


def test_one_that_fails_says_why() -> None:
    """The server's code and sentence; and waiting has an end."""
    server = Server()
    server.on("POST", PATH, archive("creating"), archive("creating"))
    fault = {"code": "archive_paths", "message": "there is nothing at '/x'"}
    server.on("GET", f"{PATH}/3", archive("failed", error=fault))
    with server.client() as cloud:
        with pytest.raises(ArchiveFailed, match="nothing at") as failed:
            cloud.workspaces.archives.create("ws_1")
        assert failed.value.code == "archive_paths"
        with pytest.raises(WaitTimeout):
            cloud.workspaces.archives.create("ws_1", timeout=0)


def test_a_download_goes_on_where_it_ended() -> None:
    """The rest of the same file is asked for; another file comes from its beginning."""
    server = Server()
    url = f"{PATH}/3/download"
    server.on("GET", url, streamed(206, b"rest"), streamed(200, b"all"))
    with server.client() as cloud:
        with cloud.workspaces.archives.download("ws_1", 3, start=4, sha256="ab") as (at, pieces):
            assert (at, b"".join(pieces)) == (4, b"rest")
        with cloud.workspaces.archives.download("ws_1", 3, start=4, sha256="cd") as (at, pieces):
            assert (at, b"".join(pieces)) == (0, b"all")
    assert server.requests[0].headers["range"] == "bytes=4-"
    assert server.requests[0].headers["if-range"] == '"ab"'


def operation(state: str, **more: Any) -> httpx.Response:
    """A restore into ws_2 as the API shows it."""
    shown = {"id": "op_1", "workspace_id": "ws_2", "kind": "unpack", "state": state, **more}
    return good(operation=shown)


def test_restoring_follows_it_to_the_end() -> None:
    """It is asked not to wait; each step is told; a failure is what a call that waits would get."""
    server = Server()
    server.on("POST", f"{PATH}/3/restore", operation("queued", message="waiting"))
    fault = {"code": "conflict", "message": "the disk is full", "status": 409, "details": {"a": 1}}
    server.on(
        "GET",
        "/workspace/ws_2/operations/op_1",
        operation("running", message="5 of 9 MiB"),
        operation("done", files_restored=7),
        operation("failed", error=fault),
        operation("running"),
    )
    told: list[str] = []
    with server.client() as cloud:
        archives = cloud.workspaces.archives
        count = archives.restore(
            "ws_1", 3, into="ws_2", on_change=lambda now: told.append(now.message)
        )
        assert (count, told) == (7, ["waiting", "5 of 9 MiB"])
        with pytest.raises(ConflictError, match="disk is full") as failed:
            archives.restore("ws_1", 3)
        assert (failed.value.status, failed.value.details) == (409, {"a": 1})
        with pytest.raises(WaitTimeout, match="ws_2 is not restored"):
            archives.restore("ws_1", 3, timeout=0)
    assert body_of(server.requests[0]) == {"workspace": "ws_2", "wait": False}


def test_all_archives_come_page_by_page() -> None:
    """Those of every workspace, deleted ones too."""
    server = Server()
    one = {"version": 1, "status": "ready", "workspace_id": "ws_1", "workspace_deleted": True}
    pages = [good(archives=[one] * 100, total=101), good(archives=[one], total=101)]
    server.on("GET", "/archives", *pages)
    with server.client() as cloud:
        found = list(cloud.workspaces.archives.all(namespace="n"))
    assert len(found) == 101
    assert found[0].workspace_deleted
    assert [dict(request.url.params)["page"] for request in server.requests] == ["1", "2"]
    assert server.requests[0].url.params["namespace"] == "n"


def test_restoring_and_deleting() -> None:
    """Restore sends what was given; deleting removes files unless told otherwise."""
    server = Server()
    server.on("POST", f"{PATH}/before-1/restore", operation("done", files_restored=7))
    server.on("DELETE", f"{PATH}/3", good(deleted=1), good(deleted=1))
    server.on("DELETE", PATH, good(deleted=2))
    with server.client() as cloud:
        archives = cloud.workspaces.archives
        assert archives.restore("ws_1", "before-1", into="ws_2", dest="/x") == 7
        archives.delete("ws_1", 3)
        archives.delete("ws_1", 3, file=False)
        assert archives.delete_all("ws_1") == 2
    assert body_of(server.requests[0]) == {"workspace": "ws_2", "dest": "/x", "wait": False}
    asked = [request.url.params for request in server.requests[1:]]
    assert [dict(one) for one in asked] == [
        {"delete_file": "true"},
        {"delete_file": "false"},
        {"delete_files": "true"},
    ]


async def test_the_same_for_asyncio() -> None:
    """The asynchronous client has the same calls."""
    server = Server()
    server.on("POST", PATH, archive("creating"))
    shown = {"version": 3, "status": "ready", "workspace_id": "ws_1"}
    server.on("GET", PATH, good(archives=[shown]))
    server.on("GET", f"{PATH}/3", archive("ready"), archive("ready"))
    server.on("GET", f"{PATH}/3/download", streamed(200, b"all"))
    server.on("GET", "/archives", good(archives=[shown], total=1))
    server.on("POST", f"{PATH}/3/restore", operation("running"))
    done = operation("done", files_restored=7)
    server.on("GET", "/workspace/ws_2/operations/op_1", operation("running"), done)
    server.on("DELETE", f"{PATH}/3", good(deleted=1))
    server.on("DELETE", PATH, good(deleted=2))
    async with server.async_client() as cloud:
        archives = cloud.workspaces.archives
        assert (await archives.create("ws_1")).status == "ready"
        assert [one.version for one in await archives.list("ws_1")] == [3]
        assert (await archives.get("ws_1", 3)).version == 3
        async with archives.download("ws_1", 3) as (at, pieces):
            assert (at, b"".join([piece async for piece in pieces])) == (0, b"all")
        assert [one.version async for one in archives.all()] == [3]
        told: list[Operation] = []
        assert await archives.restore("ws_1", 3, on_change=told.append) == 7
        assert [now.state for now in told] == ["running", "running"]
        await archives.delete("ws_1", 3)
        assert await archives.delete_all("ws_1") == 2
