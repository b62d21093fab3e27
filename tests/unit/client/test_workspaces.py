"""Workspaces through a scripted server."""

from __future__ import annotations

import httpx
import pytest
from tests.unit.client.server import Server, body_of, error, good, workspace

from bastide.client import ProvisioningFailed, UnavailableError, ValidationError, WaitTimeout


def test_create_sends_the_documented_body_and_waits() -> None:
    """Convenience arguments go into `config`; an answer that comes too early is followed up."""
    server = Server()
    server.on("POST", "/workspace", workspace("queued", ready=False))
    server.on(
        "GET",
        "/workspace/ws_1",
        workspace("running", ready=False, phase="starting"),
        workspace("running", ready=False, phase="initializing"),
        workspace(),
    )
    with server.client() as cloud:
        made = cloud.workspaces.create(
            "debian-12", name="one", cpus=0.5, memory_mb=256, env={"A": "b"}, cmd=["sleep", "9"]
        )
    assert made.ready
    assert made.something_new == 7  # type: ignore[attr-defined]
    body = body_of(server.requests[0])
    assert len(body.pop("idempotency_key")) == 32
    assert body == {
        "image": "debian-12",
        "name": "one",
        "wait_ready": True,
        "config": {
            "cpus": 0.5,
            "memory_mb": 256,
            "env": [{"key": "A", "value": "b"}],
            "cmd": ["sleep", "9"],
        },
    }
    assert server.requests[0].headers["X-Client-ID"] == "bastide_id"
    assert server.requests[0].headers["X-Client-Secret"] == "sk_secret"


def test_a_command_may_be_a_line() -> None:
    """Text goes to the API as it is, for the shell; it is not taken for a list of letters."""
    server = Server()
    server.on("POST", "/workspace", workspace())
    with server.client() as cloud:
        cloud.workspaces.create("debian-12", cmd="sleep 9 | cat", wait=False)
    assert body_of(server.requests[0])["config"] == {"cmd": "sleep 9 | cat"}


def test_a_lost_creation_is_asked_again_with_the_same_key() -> None:
    """A broken connection does not make a second workspace: the key is the same."""
    server = Server()
    server.on("POST", "/workspace", httpx.ReadError("gone"), workspace())
    with server.client() as cloud:
        cloud.workspaces.create("debian-12", wait=False)
    first, second = (body_of(request)["idempotency_key"] for request in server.requests)
    assert first == second


@pytest.mark.parametrize(
    "first", [httpx.ReadTimeout("long"), error(422, "CREATE_FAILED"), error(503, "VM_UNAVAILABLE")]
)
def test_a_creation_that_is_waited_for_is_looked_up(first: httpx.Response | Exception) -> None:
    """A lost or bad answer is followed by the same creation without waiting: it knows the end."""
    server = Server()
    record = workspace("failed", ready=False, phase="failed")
    server.on("POST", "/workspace", first, record)
    with server.client() as cloud, pytest.raises(ProvisioningFailed):
        cloud.workspaces.create("debian-12")
    bodies = [body_of(request) for request in server.requests]
    assert [body.pop("wait_ready") for body in bodies] == [True, False]
    assert bodies[0] == bodies[1]


def test_a_refused_creation_is_asked_for_once() -> None:
    """What is wrong with the request stays wrong."""
    server = Server()
    server.on("POST", "/workspace", error(422, "validation_error"))
    with server.client() as cloud, pytest.raises(ValidationError):
        cloud.workspaces.create("debian-12")
    assert len(server.requests) == 1


def test_a_failed_creation_raises_its_code() -> None:
    """`provisioning.error` becomes the exception."""
    server = Server()
    failed = good(
        workspace={
            "id": "ws_1",
            "name": "one",
            "provisioning": {
                "state": "failed",
                "phase": "failed",
                "error": {"code": "CREATE_FAILED", "message": "no space"},
            },
        }
    )
    server.on("GET", "/workspace/ws_1", failed)
    with server.client() as cloud, pytest.raises(ProvisioningFailed, match="no space") as caught:
        cloud.workspaces.wait_ready("ws_1")
    assert caught.value.code == "CREATE_FAILED"


def test_waiting_ends() -> None:
    """A workspace that is never ready ends in WaitTimeout, by the client's clock."""
    server = Server()
    server.on("GET", "/workspace/ws_1", workspace("running", ready=False))
    seconds = iter(range(100))
    with server.client() as cloud:
        cloud.workspaces._clock = lambda: float(next(seconds))
        with pytest.raises(WaitTimeout):
            cloud.workspaces.wait_ready("ws_1", timeout=5)
    assert len(server.requests) == 5


def test_each_phase_is_told_once() -> None:
    """`on_change` hears of each phase, not of each poll."""
    server = Server()
    queued = workspace("queued", ready=False)
    server.on("GET", "/workspace/ws_1", queued, queued, workspace())
    phases: list[str] = []
    with server.client() as cloud:
        cloud.workspaces.wait_ready(
            "ws_1",
            on_change=lambda now: phases.append(now.provisioning.phase),  # type: ignore[union-attr]
        )
    assert phases == ["queued", "ready"]


def test_list_turns_the_pages() -> None:
    """The list goes on until `total` is reached."""
    server = Server()
    item = {"id": "ws_1", "name": "one"}
    server.on(
        "GET",
        "/workspace",
        good(workspaces=[item] * 100, total=101, page=1, limit=100),
        good(workspaces=[item], total=101, page=2, limit=100),
    )
    with server.client() as cloud:
        assert len(list(cloud.workspaces.list(status="running", mode="temporary"))) == 101
    assert [request.url.params["page"] for request in server.requests] == ["1", "2"]
    for request in server.requests:
        asked = request.url.params
        assert (asked["status"], asked["mode"]) == ("running", "temporary")


def test_power_and_deletion_use_their_paths() -> None:
    """Each verb is one call to its path, ids escaped."""
    server = Server()
    for path in ("start", "stop", "restart"):
        server.on("POST", f"/workspace/a b/{path}", good())
    server.on("DELETE", "/workspace/a b", good())
    server.on("PUT", "/workspace/a b", workspace())
    with server.client() as cloud:
        cloud.workspaces.start("a b", force=True)
        cloud.workspaces.stop("a b")
        cloud.workspaces.restart("a b")
        cloud.workspaces.update("a b", name="new")
        cloud.workspaces.delete("a b")
    assert body_of(server.requests[0]) == {"force": True}
    assert body_of(server.requests[3]) == {"name": "new"}
    assert [request.url.raw_path for request in server.requests] == [
        b"/workspace/a%20b/start",
        b"/workspace/a%20b/stop",
        b"/workspace/a%20b/restart",
        b"/workspace/a%20b",
        b"/workspace/a%20b",
    ]


def test_only_what_may_be_repeated_is_sent_again() -> None:
    """A 503 repeats a stop but not a restart; a 429 repeats even that."""
    server = Server()
    busy = error(503, "VM_UNAVAILABLE")
    server.on("POST", "/workspace/ws_1/stop", busy, busy, good())
    server.on("POST", "/workspace/ws_1/restart", error(429, "rate_limited"), busy, good())
    with server.client() as cloud:
        cloud.workspaces.stop("ws_1")
        with pytest.raises(UnavailableError):
            cloud.workspaces.restart("ws_1")
    assert (
        server.paths() == ["POST /workspace/ws_1/stop"] * 3 + ["POST /workspace/ws_1/restart"] * 2
    )


def test_lifecycle_and_images_are_typed() -> None:
    """The seed's lifecycle example and the catalogue are read into their types."""
    server = Server()
    server.on(
        "GET",
        "/workspace/ws_1/lifecycle",
        good(
            mode="permanent", status="running", restart_policy="always", max_restarts=0,
            restart_info={}, ttl=None, ttl_action=None, remove_on_exit=False, uptime=7200,
        ),
    )  # fmt: skip
    images = [{"id": "debian-12", "label": "Debian"}]
    categories = [{"id": "all", "label": "All"}, {"id": "os", "label": "Systems"}]
    server.on("GET", "/workspace/images", good(images=images, categories=categories))
    with server.client() as cloud:
        assert cloud.workspaces.lifecycle("ws_1").uptime == 7200
        assert [image.id for image in cloud.images.list()] == ["debian-12"]
        found = [(one.id, one.label) for one in cloud.images.categories()]
        assert found == [("all", "All"), ("os", "Systems")]


async def test_the_async_client_is_the_same() -> None:
    """Creating, waiting, listing and deleting through asyncio."""
    server = Server()
    server.on("POST", "/workspace", httpx.ConnectError("not yet"), workspace("queued", ready=False))
    server.on("GET", "/workspace/ws_1", workspace("running", ready=False), workspace())
    server.on(
        "GET", "/workspace", good(workspaces=[{"id": "ws_1", "name": "one"}], total=1, page=1)
    )
    server.on("DELETE", "/workspace/ws_1", good())
    server.on("GET", "/workspace/images", good(images=[], categories=[{"id": "all"}]))
    async with server.async_client() as cloud:
        made = await cloud.workspaces.create("debian-12")
        assert made.ready
        listed = cloud.workspaces.list(mode="temporary")
        assert [item.id async for item in listed] == ["ws_1"]
        assert server.requests[-1].url.params["mode"] == "temporary"
        await cloud.workspaces.delete("ws_1")
        assert await cloud.images.list() == []
        assert [one.id for one in await cloud.images.categories()] == ["all"]
