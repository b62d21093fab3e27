"""What is due, and what is held."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.store.rows import add_account, add_operation, add_workspace

from bastide.domain.instant import now
from bastide.domain.operation import OperationKind
from bastide.store.accounts import Accounts
from bastide.store.database import Database
from bastide.store.operations import Operations


async def due(database: Database) -> list[OperationKind]:
    """The kinds there is work for."""
    async with database.read() as session:
        return await Operations(session).due()


async def test_due_is_what_can_be_taken(database: Database) -> None:
    """Waiting and held operations are not due; those whose lock ran out are."""
    account = await add_account(database)
    assert await due(database) == []
    await add_operation(
        database,
        await add_workspace(database, account),
        OperationKind.STOP,
        run_after=now() + timedelta(hours=1),
    )
    assert await due(database) == []
    await add_operation(database, await add_workspace(database, account), OperationKind.START)
    assert await due(database) == [OperationKind.START]
    async with database.write() as session:
        taken = await Operations(session).lock_next("test", 60)
        assert taken is not None
        assert [row.id for row in await Operations(session).locked()] == [taken.id]
    assert await due(database) == []
    async with database.write() as session:
        await Operations(session).extend(taken.id, taken.lock_token or "", -1)
    assert await due(database) == [OperationKind.START]


async def test_an_account_can_be_held(database: Database) -> None:
    """Holding gives the account; an unknown one is None."""
    account = await add_account(database)
    async with database.write() as session:
        found = await Accounts(session).hold(account.id)
        assert found is not None
        assert found.id == account.id
        assert await Accounts(session).hold("acc_none") is None
