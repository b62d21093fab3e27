"""What must hold in a race, on PostgreSQL, where writers do not wait for each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.api.workspaces.cloud import Cloud, World
from tests.api.workspaces.test_archives import (
    test_all_archives_are_found,
    test_archives_outlive_their_workspace,
    test_deleting_with_and_without_the_file,
)
from tests.api.workspaces.test_archives_back import (
    test_an_archive_is_not_deleted_while_it_is_restored,
    test_of_deleting_and_restoring_one_wins,
)
from tests.api.workspaces.test_archives_broken import test_storage_that_goes_in_the_middle
from tests.api.workspaces.test_crash import (
    test_a_creation_is_taken_up_again,
    test_a_stale_result_is_dropped,
    test_two_control_planes_share_the_work,
)
from tests.api.workspaces.test_create import (
    test_equal_names_get_different_slugs,
    test_limits_hold_in_a_race,
    test_the_same_key_makes_one_workspace,
    test_thirty_at_once,
)
from tests.api.workspaces.test_leases import (
    test_a_lease_that_ended_while_nobody_was_there,
    test_of_renewal_and_expiry_exactly_one_wins,
    test_removed_on_any_exit,
)
from tests.api.workspaces.test_power import (
    test_deletion_supersedes_a_creation,
    test_of_conflicting_calls_one_wins,
)
from tests.api.workspaces.test_restarts import test_restarts_back_off
from tests.postgres import Postgres

from bastide.settings import Database, Settings

pytestmark = pytest.mark.postgres

__all__ = [
    "test_a_creation_is_taken_up_again",
    "test_a_lease_that_ended_while_nobody_was_there",
    "test_a_stale_result_is_dropped",
    "test_all_archives_are_found",
    "test_an_archive_is_not_deleted_while_it_is_restored",
    "test_archives_outlive_their_workspace",
    "test_deleting_with_and_without_the_file",
    "test_deletion_supersedes_a_creation",
    "test_equal_names_get_different_slugs",
    "test_limits_hold_in_a_race",
    "test_of_conflicting_calls_one_wins",
    "test_of_deleting_and_restoring_one_wins",
    "test_of_renewal_and_expiry_exactly_one_wins",
    "test_removed_on_any_exit",
    "test_restarts_back_off",
    "test_storage_that_goes_in_the_middle",
    "test_the_same_key_makes_one_workspace",
    "test_thirty_at_once",
    "test_two_control_planes_share_the_work",
]


@pytest.fixture
def world(tmp_path: Path, postgres: Postgres) -> World:
    """An empty server on PostgreSQL."""
    return World(
        Settings(
            state_dir=tmp_path / "state",
            run_dir=tmp_path / "run",
            database=Database(url=postgres.new_database()),
        )
    )


@pytest.fixture
async def cloud(world: World) -> AsyncIterator[Cloud]:
    """A running control plane on PostgreSQL."""
    async with world.cloud() as running:
        yield running
