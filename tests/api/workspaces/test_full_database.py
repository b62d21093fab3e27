"""A database without room: it is said, looking goes on, and what was begun ends once there is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, OperationalError
from tests.api.workspaces.cloud import Cloud, eventually

from bastide.api import requests
from bastide.store.database import Database

UNLIMITED = 2**32 - 2
LARGE = {"env": {"LARGE": "x" * 20_000}}


@contextmanager
def no_room(database: Database) -> Iterator[None]:
    """A SQLite file that can take no page more."""

    def limit(connection: Connection, pages: int = 1) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # never below what it has

    def unlimit(connection: Connection) -> None:
        limit(connection, UNLIMITED)

    event.listen(database.engine, "begin", limit)
    try:
        yield
    finally:
        event.remove(database.engine, "begin", limit)
        event.listen(database.engine, "begin", unlimit)


async def test_a_full_database_is_told_and_got_over(cloud: Cloud) -> None:
    """Who writes is told what to do, who reads is answered, an operation ends later."""
    database = cloud.services.database
    if not database.is_sqlite:
        pytest.skip("only SQLite can be made full so easily")
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    cloud.engine.hold["stop"] = asyncio.Event()
    stopping = asyncio.create_task(cloud.http.post(f"{path}/stop"))
    await eventually(lambda: ("stop", found["id"]) in cloud.engine.calls)
    with no_room(database):
        for _ in range(50):  # until no page has room
            answer = await cloud.http.post("/workspace", json=LARGE)
            if answer.status_code != 201:
                break
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "no room" in answer.json()["message"]
        assert "make room" in answer.json()["message"]
        cloud.engine.release("stop")
        await eventually(lambda: cloud.engine.machines[found["id"]].status.state == "stopped")
        assert (await cloud.get(found["id"]))["id"] == found["id"]
        await cloud.call("GET", "/workspace")
    assert (await stopping).status_code < 500 or "room" in stopping.result().text
    stopped = await cloud.until(found["id"], lambda each: each["status"] == "stopped")
    assert stopped["id"] == found["id"]
    await cloud.create(**LARGE)


class _DiskFull(Exception):  # noqa: N818 - as PostgreSQL calls it
    sqlstate = "53100"


def test_the_two_databases_are_understood() -> None:
    """Each has its own code for it; another failure is none."""
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    for cause, says in ((full, "no room"), (_DiskFull(), "no room"), (Exception(), "not answer")):
        kind = DBAPIError if isinstance(cause, _DiskFull) else OperationalError
        assert says in requests._answer_to(kind("INSERT", {}, cause)).message
