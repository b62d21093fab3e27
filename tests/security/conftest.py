"""Two workspaces of one cloud, kept for all tests of a file, and a world around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.inside import Inside

from bastide.client import Bastide, NotFoundError


@pytest.fixture(scope="module")
def client(cloud: Cloud) -> Iterator[Bastide]:
    """A client with the first admin key."""
    with cloud.client() as found:
        yield found


@pytest.fixture(scope="module")
def make_inside(client: Bastide) -> Iterator[Callable[..., Inside]]:
    """Makes ready workspaces; they are deleted afterwards."""
    with makes_inside(client) as make:
        yield make


@pytest.fixture(scope="module")
def inside(make_inside: Callable[..., Inside]) -> Inside:
    """The workspace in which hostile code runs."""
    return make_inside()


@pytest.fixture(scope="module")
def neighbour(make_inside: Callable[..., Inside]) -> Inside:
    """The workspace that must not notice."""
    return make_inside()


@contextmanager
def makes_inside(client: Bastide) -> Iterator[Callable[..., Inside]]:
    """Workspaces that end with the block."""
    made: list[str] = []

    def make(**wanted: object) -> Inside:
        options = {"memory_mb": 256, "disk_size_mb": 256} | wanted
        workspace = client.workspaces.create("debian-12", **options)  # type: ignore[arg-type]
        made.append(workspace.id)
        return Inside(client, workspace)

    yield make
    for workspace in made:
        try:
            client.workspaces.delete(workspace)
        except NotFoundError:
            continue
