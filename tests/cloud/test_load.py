"""Many at once: creations, deletions, equal keys, and limits that nobody may slip past."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.cloud.batch import Batch, codes
from tests.cloud.cloud import Cloud

from bastide.client import ApiError, Bastide
from bastide.store.accounts import Accounts
from bastide.store.database import Database

pytestmark = pytest.mark.cloud

BURST = 30
LIMIT = 3


def test_thirty_at_once(client: Bastide) -> None:
    """Thirty creations at once all succeed and answer exec; thirty deletions at once too."""
    batch = Batch(client, BURST)
    try:
        batch.create()
        assert {found.state for found in batch.settled().values()} == {"ready"}
        assert codes(batch.exec("true")) == {0}
    finally:
        batch.delete()


def test_an_equal_key_makes_one_workspace(client: Bastide) -> None:
    """Ten creations at once with one idempotency key give one workspace."""
    batch = Batch(client, 1)
    try:
        with ThreadPoolExecutor(10) as pool:
            made = set(pool.map(lambda _: batch._create(batch.keys[0]), range(10)))
        assert len(made) == 1
        batch.ids = list(made)
        assert batch.settled()[made.pop()].state == "ready"
        assert len([one for one in client.workspaces.list() if one.id in batch.ids]) == 1
    finally:
        batch.delete()


@pytest.fixture
async def limited(cloud: Cloud) -> Bastide:
    """A client of an account of its own that may have three workspaces."""
    account = cloud.json("account", "create", "limited")["id"]
    key = cloud.json("key", "create", "--account", account)
    database = Database(cloud.settings.database_url)
    try:
        async with database.write() as session:
            row = await Accounts(session).get(account)
            assert row is not None
            row.limits = {"max_workspaces": LIMIT}
    finally:
        await database.close()
    return Bastide(
        api_url=cloud.environment["BASTIDE_API_URL"],
        gateway_url=cloud.environment["BASTIDE_GATEWAY_URL"],
        client_id=key["client_id"],
        client_secret=key["client_secret"],
    )


def test_nobody_slips_past_the_limit(limited: Bastide) -> None:
    """Of fifteen creations at once three are made; the others are told the limit."""
    batch = Batch(limited, 15)

    def create(key: str) -> str:
        try:
            return batch._create(key)
        except ApiError as error:
            return error.code

    try:
        with limited, ThreadPoolExecutor(15) as pool:
            told = list(pool.map(create, batch.keys))
            batch.ids = [one for one in told if one.startswith("ws_")]
            assert len(batch.ids) == LIMIT
            assert told.count("SANDBOX_LIMIT_REACHED") == 15 - LIMIT
            assert {found.state for found in batch.settled().values()} == {"ready"}
            batch.delete()
            fresh = Batch(limited, 1)
            fresh.create(accepted=1)
            fresh.delete()
    finally:
        limited.close()


def test_a_busy_host_answers_others(client: Bastide) -> None:
    """While twenty are being made, lists and commands elsewhere go on."""
    used = Batch(client, 1)
    crowd = Batch(client, 20)
    try:
        used.create(accepted=1)
        used.settled()

        def others() -> None:
            for _ in range(5):
                assert codes(used.exec("true")) == {0}
                assert used.ids[0] in {one.id for one in client.workspaces.list()}

        crowd.create(after=others, accepted=1)
        assert {found.state for found in crowd.settled().values()} == {"ready"}
    finally:
        crowd.delete()
        used.delete()


@pytest.fixture(autouse=True)
def _account_is_left_as_it_was(client: Bastide) -> Iterator[None]:
    """No test here leaves a workspace behind."""
    before = {one.id for one in client.workspaces.list()}
    yield
    assert {one.id for one in client.workspaces.list()} <= before
