"""How SQLite finds what is asked all the time: by an index, however much there ever was.

PostgreSQL makes its plans by what the tables hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session
from tests.unit.store.rows import add_account, add_workspace

from bastide.domain.instant import now
from bastide.domain.operation import OperationKind
from bastide.store.database import Database
from bastide.store.operations import Operations
from bastide.store.workspaces import Workspaces


@contextmanager
def asked(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """The questions asked meanwhile, with their values."""
    found: list[tuple[str, Any]] = []

    def note(*given: Any) -> None:
        if given[2].startswith(("SELECT", "DELETE")):
            found.append(given[2:4])

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


async def plans(database: Database, questions: list[tuple[str, Any]]) -> list[str]:
    """What SQLite does to answer each."""

    def plan(session: Session, said: str, values: Any) -> str:
        steps = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {said}", values)
        return " | ".join(row.detail for row in steps)

    async with database.read() as session:
        return [await session.run_sync(plan, said, values) for said, values in questions]


async def test_the_newest_operation(sqlite: Database) -> None:
    """Neither question that is asked every two seconds goes through the history."""
    one = await add_workspace(sqlite, await add_account(sqlite))
    with asked(sqlite) as questions:
        async with sqlite.read() as session:
            await Operations(session).latest([one.id])
            await Operations(session).latest([one.id], OperationKind.PROVISION)
            await Operations(session).telling(one.id)
    told = await plans(sqlite, questions)
    assert len(told) == 3
    for steps in told:
        assert "SCAN" not in steps, steps
        assert "ix_operations_workspace_id" in steps, steps


async def test_old_operations(sqlite: Database) -> None:
    """Those that may go are found without a look at those that may not."""
    with asked(sqlite) as questions:
        async with sqlite.write() as session:
            await Operations(session).prune(now(), 10)
    (steps,) = await plans(sqlite, questions)
    assert "SCAN" not in steps, steps
    assert "ix_operations_state_run_after" in steps, steps


async def test_a_workspace_by_id_or_slug(sqlite: Database) -> None:
    """Nobody's request goes through all that the account ever had."""
    account = await add_account(sqlite)
    one = await add_workspace(sqlite, account, slug="calm-harbor")
    with asked(sqlite) as questions:
        async with sqlite.read() as session:
            assert await Workspaces(session).find(account.id, "calm-harbor") is not None
            assert await Workspaces(session).get(one.id) is not None
            assert (await Workspaces(session).told(account.id, "calm-harbor"))[0] is not None
    told = await plans(sqlite, questions)
    assert len(told) == 3
    for steps in told:
        assert "SCAN" not in steps, steps
        assert "ix_workspaces_account_id" not in steps, steps


async def test_the_check_would_see_a_scan(sqlite: Database) -> None:
    """What goes through a table is told as such."""
    with asked(sqlite) as questions:
        async with sqlite.read() as session:
            await session.execute(text("SELECT * FROM workspaces WHERE name = 'x'"))
    assert "SCAN" in (await plans(sqlite, questions))[0]
