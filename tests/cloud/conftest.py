"""A client of the cloud, and workspaces in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from tests.cloud.cloud import Cloud

from bastide.client import Bastide, NotFoundError, Workspace


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Bastide]:
    """A client with the first admin key."""
    with cloud.client() as found:
        yield found


@pytest.fixture
def make_workspace(client: Bastide) -> Iterator[Callable[..., Workspace]]:
    """Makes ready workspaces of debian-12; they are deleted afterwards."""
    made: list[str] = []

    def make(**wanted: object) -> Workspace:
        workspace = client.workspaces.create("debian-12", **wanted)  # type: ignore[arg-type]
        made.append(workspace.id)
        return workspace

    yield make
    for workspace in made:
        with suppress(NotFoundError):  # its lease may have removed it
            client.workspaces.delete(workspace)


@pytest.fixture
def workspace(make_workspace: Callable[..., Workspace]) -> Workspace:
    """One ready workspace."""
    return make_workspace()
