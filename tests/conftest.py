"""What every area of the tests may use."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.cloud.cloud import RUNNING, Cloud, own_cloud, running_cloud
from tests.postgres import Postgres, binaries, running

from bastide.store.database import Database
from bastide.store.migrate import migrate

# A busy machine makes an example late, not wrong.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """One whole cloud for the session: its own, or with BASTIDE_TEST_RUNNING=1 this host's."""
    if os.geteuid() != 0:
        pytest.skip("a cloud needs root")
    with running_cloud() if os.environ.get(RUNNING) == "1" else own_cloud() as found:
        yield found


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One private PostgreSQL for the session."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with running(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database without tables: SQLite, and PostgreSQL under the marker `postgres`."""
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new_database()
    else:
        url = f"sqlite:///{tmp_path}/bastide.sqlite3"
    database = Database(url)
    yield database
    await database.close()


@pytest.fixture
async def database(empty_database: Database) -> Database:
    """A migrated database of either kind."""
    await migrate(empty_database)
    return empty_database
