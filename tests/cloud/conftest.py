"""One whole cloud for all tests here, and workspaces in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from tests.cloud.cloud import RUNNING, Cloud, own_cloud, running_cloud

from bastide.client import Bastide, Workspace


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """A cloud of its own, or with BASTIDE_TEST_RUNNING=1 the one that runs on this host."""
    if os.geteuid() != 0:
        pytest.skip("a cloud needs root")
    with running_cloud() if os.environ.get(RUNNING) == "1" else own_cloud() as found:
        yield found


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Bastide]:
    """A client with the first admin key."""
    with Bastide(
        api_url=cloud.environment["BASTIDE_API_URL"],
        gateway_url=cloud.environment["BASTIDE_GATEWAY_URL"],
        client_id=cloud.environment["BASTIDE_CLIENT_ID"],
        client_secret=cloud.environment["BASTIDE_CLIENT_SECRET"],
    ) as found:
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
        client.workspaces.delete(workspace)


@pytest.fixture
def workspace(make_workspace: Callable[..., Workspace]) -> Workspace:
    """One ready workspace."""
    return make_workspace()
