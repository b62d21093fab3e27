"""Whatever is sent: never a 500, always the envelope.

Two generators over every path, on a real HTTP server: one that follows the description and bends
it, one that knows nothing and sends hostile JSON, text, paths and headers.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from tests.api.stage import Stage, check_envelope, staged
from tests.fakes.bastion import FakeBastion
from tests.fakes.edge import FakeEdge
from tests.fakes.engine import FakeAgent, FakeEngine

from bastide.api.assembly import Outside
from bastide.depot.directory import DirectoryDepot

DEADLINE = 60.0
BOUNDED = settings(
    deadline=None,
    database=None,
    derandomize=True,  # the same requests on every run
    suppress_health_check=list(HealthCheck),
)
TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "\x00", "\ud800", "../../etc/passwd", "%00", "' OR 1=1 --", "ws_", "a" * 999]
    ),
)
NUMBER = st.one_of(
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**40, 0, -1]),
    st.floats(allow_nan=True, allow_infinity=True),
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
# fmt: off
FIELDS = st.sampled_from([
    "scope", "namespace", "workspaceId", "ttl", "label", "name", "slug", "logo", "image", "mode",
    "config", "wait_ready", "idempotency_key", "cpus", "memory_mb", "disk_size_mb",
    "writable_size_mb", "env", "cmd", "restart_policy", "max_restarts", "network_config",
    "allow_internet", "public_access", "ingress", "ingress_ports", "egress", "egress_ports",
    "private_link_ids", "outbound_mode", "custom_proxy", "force", "ttl_action", "idle",
    "workloads", "ssh_access", "disks", "page", "limit", "status", "search", "category",
])
# fmt: on
OBJECT = st.dictionaries(FIELDS, ANYTHING, max_size=4)
BODY = st.one_of(st.dictionaries(FIELDS, OBJECT | ANYTHING, max_size=5), ANYTHING)
QUERY = st.dictionaries(
    st.sampled_from(["page", "limit", "status", "mode", "namespace", "search", "category"]),
    TEXT | NUMBER.map(str),
    max_size=3,
)


@dataclass(frozen=True)
class Target:
    """A running server, what is on it, and its operations."""

    url: str
    admin: httpx.Client
    anyone: httpx.Client
    workspace: str
    operations: dict[str, APIOperation[Any, Any, Any, Any]]


@contextmanager
def serving(directory: Path) -> Iterator[tuple[str, Stage]]:
    """The API over a fake engine on a loopback port, in a thread with an event loop of its own."""
    ready = threading.Event()
    found: list[tuple[str, Stage]] = []
    failed: list[BaseException] = []
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        engine = FakeEngine()
        outside = Outside(
            engine,
            FakeAgent(engine),
            FakeEdge(),
            FakeBastion(),
            DirectoryDepot(directory / "archives"),
        )
        async with staged(directory, outside) as stage:
            config = uvicorn.Config(
                stage.app, port=0, lifespan="off", log_config=None, access_log=False
            )
            socket = config.bind_socket()
            socket.listen()  # before anybody is told: a busy machine may take its time to serve
            servers.append(uvicorn.Server(config))
            found.append((f"http://127.0.0.1:{socket.getsockname()[1]}", stage))
            ready.set()
            await servers[0].serve(sockets=[socket])
            socket.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(DEADLINE)
        assert not failed, failed
        yield found[0]
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(DEADLINE)
    assert not failed, failed


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with one workspace on it."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("no500")
        patch.setenv("BASTIDE_CONFIG", str(directory / "none.toml"))
        with (
            serving(directory) as (url, stage),
            httpx.Client(base_url=url, headers=stage.admin, timeout=DEADLINE) as admin,
            httpx.Client(base_url=url, timeout=DEADLINE) as anyone,
        ):
            body = {"name": "target", "image": "debian-12", "wait_ready": True}
            made = admin.post("/workspace", json=body)
            assert made.status_code == 201, made.text
            schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
            results = list(schema.get_all_operations())
            operations = [result.ok() for result in results if isinstance(result, Ok)]
            assert len(operations) == len(results), "the description has errors"
            yield Target(
                url,
                admin,
                anyone,
                made.json()["workspace"]["id"],
                {f"{item.method.upper()} {item.path}": item for item in operations},
            )


def judge(response: httpx.Response) -> None:
    """No defect, and the envelope."""
    assert response.status_code < 500 or response.status_code in {501, 503}, response.text
    if response.headers["Content-Type"] == "application/json":
        if response.request.url.path != "/openapi.json":
            check_envelope(response)
    else:
        assert response.request.url.path in {"/metrics", "/docs"}


def test_bent_descriptions(target: Target) -> None:
    """Requests that follow the description, or nearly, on existing and unknown workspaces."""
    assert len(target.operations) >= 6
    for name, operation in sorted(target.operations.items()):
        _bend(target, name, operation)


def _bend(target: Target, name: str, operation: APIOperation[Any, Any, Any, Any]) -> None:
    """Fuzz one operation; the workspace everybody uses is not deleted."""
    known = st.booleans() if "{id}" in name and not name.startswith("DELETE") else st.just(False)

    @settings(BOUNDED, max_examples=12)
    @given(case=operation.as_strategy(), on_known=known)
    def send(case: schemathesis.Case[Any], on_known: bool) -> None:  # noqa: FBT001 - drawn
        if on_known:
            case.path_parameters = {**case.path_parameters, "id": target.workspace}
        request = case.as_transport_kwargs(base_url=target.url)
        content = json.dumps(request["json"]).encode() if "json" in request else request.get("data")
        judge(
            target.admin.request(
                request["method"],
                request["url"],
                params=request.get("params"),
                content=content,
                headers={"Content-Type": "application/json"},
            )
        )

    send()


@settings(BOUNDED, max_examples=200)
@given(data=st.data(), query=QUERY, body=BODY)
def test_hostile_requests(
    target: Target, data: st.DataObject, query: dict[str, str], body: Any
) -> None:
    """Any JSON, path segment, query and content type, on every path."""
    name = data.draw(st.sampled_from(sorted(target.operations)))
    kinds = ["application/json", "text/plain", "", "multipart/form-data"]
    request = (name.split()[0], _path(target, name, data))
    _attack(target, request, body, query, data.draw(st.sampled_from(kinds)))


@settings(BOUNDED, max_examples=200)
@given(data=st.data(), body=BODY)
def test_hostile_bodies(target: Target, data: st.DataObject, body: Any) -> None:
    """Any JSON where a body is read, on a workspace that exists."""
    reading = [name for name, operation in target.operations.items() if operation.body]
    name = data.draw(st.sampled_from(sorted(reading)))
    method, path = name.replace("{id}", target.workspace).split()
    _attack(target, (method, path), body, {}, "application/json")


@settings(BOUNDED, max_examples=60)
@given(query=QUERY)
def test_hostile_queries(target: Target, query: dict[str, str]) -> None:
    """Any query where one is read."""
    for path in ("/workspace", "/workspace/images"):
        _attack(target, ("GET", path), None, query, "application/json")


def _path(target: Target, name: str, data: st.DataObject) -> str:
    """The operation's path, with the workspace of this test or with anything at all."""
    method, path = name.split()
    reference = data.draw(st.sampled_from([target.workspace, None]))
    if reference is None or method == "DELETE":
        reference = quote(data.draw(TEXT).encode("utf-8", "surrogatepass"), safe="")
    return path.replace("{id}", reference).replace("{key}", reference)


def _attack(
    target: Target, request: tuple[str, str], body: Any, query: dict[str, str], kind: str
) -> None:
    """Send it, and judge the answer."""
    judge(
        target.admin.request(
            *request,
            params={key: value.encode("utf-8", "replace") for key, value in query.items()},
            content=json.dumps(body).encode("utf-8", "surrogatepass"),
            headers={"Content-Type": kind},
        )
    )


@settings(BOUNDED, max_examples=50)
@given(client=st.binary(max_size=60), secret=st.binary(max_size=60), bearer=st.binary(max_size=200))
def test_hostile_credentials(target: Target, client: bytes, secret: bytes, bearer: bytes) -> None:
    """Whatever stands in the headers, it is 400 or 401 and nothing else."""
    headers = [
        (b"X-Client-ID", client),
        (b"X-Client-Secret", secret),
        (b"Authorization", b"Bearer " + bearer),
    ]
    clean = [
        (name, value.translate(None, bytes([*range(32), 127])).strip()) for name, value in headers
    ]
    for sent in (clean[:2], clean[2:], clean):
        response = target.anyone.get("/workspace", headers=sent)
        assert response.status_code in {400, 401}
        check_envelope(response)
