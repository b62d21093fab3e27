"""`bastide image` through a scripted node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from tests.unit.client.server import Server
from typer.testing import CliRunner

from bastide.cli import node_socket
from bastide.cli.app import app
from bastide.cli.fault import Fault

REMOVED = {"bytes": 2**20, "images": 1, "layers": 2}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Server:
    """What answers on the node's socket."""
    server = Server()

    @contextmanager
    def scripted(_: str) -> Iterator[httpx.Client]:
        transport = httpx.MockTransport(server.handle)
        with httpx.Client(base_url="http://node", transport=transport) as client:
            yield client

    monkeypatch.setattr(node_socket, "node", scripted)
    return server


@pytest.mark.parametrize(
    ("args", "path", "told"),
    [
        (("remove", "alpine:latest", "--yes"), "/v1/images/remove", "removed: alpine:latest"),
        (("gc",), "/v1/images/gc", "removed: 1 images, 2 layers, 1.0 MiB"),
    ],
)
def test_what_was_removed(node: Server, args: tuple[str, ...], path: str, told: str) -> None:
    """A line for people, and the figures for programs."""
    node.on("POST", path, httpx.Response(200, json=REMOVED))
    done = CliRunner().invoke(app, ["image", *args], catch_exceptions=False)
    assert done.stdout.startswith(told)
    done = CliRunner().invoke(app, ["image", *args, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) == REMOVED


def test_who_stops_waiting_for_an_image(node: Server) -> None:
    """The work ends with the last who waits for it; what was fetched is kept."""
    node.on("POST", "/v1/images/pull", KeyboardInterrupt())
    with pytest.raises(Fault, match="broken off") as fault:
        CliRunner().invoke(app, ["image", "pull", "alpine:latest"], catch_exceptions=False)
    assert fault.value.code == 130
    assert "run it again" in (fault.value.todo or "")
