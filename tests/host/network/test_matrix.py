"""Every source, at every port, under every kind of policy: each cell is tried."""

from __future__ import annotations

import pwd
from collections.abc import Iterator

import pytest

from bastide.domain.machine import CONTROL_PORT, RUNTIME_PORT
from bastide.domain.network import NetworkPolicy

from .conftest import API_USER, EDGE_USER
from .stage import Guest, Stage

pytestmark = pytest.mark.host

APP, SSH = 8080, 22
PORTS = (APP, RUNTIME_PORT, CONTROL_PORT, SSH)
OPENED = (APP, RUNTIME_PORT)
SOURCES = ("internet", "other", "linked", "user", "api", "edge")
POLICIES = ("default", "public", "port", "link", "both")


@pytest.fixture(name="taps", params=[False, True], ids=["veth", "tap"])
def _taps(request: pytest.FixtureRequest) -> bool:
    """Both kinds of link: a machine with a kernel of its own has a tap."""
    kind: bool = request.param
    return kind


@pytest.fixture(name="users")
def _users() -> Iterator[dict[str, Guest]]:
    found = {
        "user": Guest(user=54321),
        "api": Guest(user=pwd.getpwnam(API_USER).pw_uid),
        "edge": Guest(user=pwd.getpwnam(EDGE_USER).pw_uid),
    }
    yield found
    for guest in found.values():
        guest.close()


def policy(kind: str, caller: str) -> NetworkPolicy:
    """`both`: public access and a link, with the ports open."""
    return NetworkPolicy(
        public_access=kind in {"public", "both"},
        links=(caller,) if kind in {"link", "both"} else (),
        ingress_ports=OPENED if kind in {"port", "both"} else (),
    )


def expected(source: str, port: int, kind: str) -> bool:
    """Whether the cell is open."""
    if port == CONTROL_PORT:
        return source == "api"
    return kind == "both" and port in OPENED and source in {"linked", "edge"}


@pytest.mark.parametrize("kind", POLICIES)
async def test_every_cell(stage: Stage, users: dict[str, Guest], kind: str) -> None:
    """Source and port must both be admitted; the control port is the api's alone."""
    linked, other = await stage.machine(), await stage.machine()
    target = await stage.machine(policy(kind, linked.ip), serve=APP)
    for port in PORTS[1:]:
        target.serve(port=port)
    sources: dict[str, Guest] = {
        "internet": stage.internet, "other": other, "linked": linked, **users
    }  # fmt: skip
    wanted = {(source, port): expected(source, port, kind) for source in SOURCES for port in PORTS}
    found = {
        cell: sources[cell[0]].reach(target.ip, cell[1], deadline=20 if is_open else 0.5) == "open"
        for cell, is_open in wanted.items()
    }
    assert found == wanted
