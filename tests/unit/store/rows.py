"""Rows to begin with."""

from __future__ import annotations

from typing import Any

from bastide.domain.operation import OperationKind
from bastide.store.accounts import Accounts
from bastide.store.database import Database
from bastide.store.operations import Operations
from bastide.store.tables import Account, Operation, Workspace
from bastide.store.workspaces import Workspaces


async def add_account(database: Database, name: str = "one") -> Account:
    """An account."""
    async with database.write() as session:
        return await Accounts(session).insert(Account(name=name))


def workspace(account: Account, **values: Any) -> Workspace:
    """A workspace, not yet in the database."""
    given = {"name": "w", "image": "debian-12", "cpus": 1.0, "memory_mb": 512, "disk_mb": 4096}
    return Workspace(account_id=account.id, **{**given, **values})


async def add_workspace(database: Database, account: Account, **values: Any) -> Workspace:
    """A workspace."""
    async with database.write() as session:
        return await Workspaces(session).insert(workspace(account, **values))


async def add_operation(
    database: Database,
    owner: Workspace,
    kind: OperationKind = OperationKind.PROVISION,
    **values: Any,
) -> Operation:
    """An operation."""
    async with database.write() as session:
        return await Operations(session).insert(
            Operation(workspace_id=owner.id, kind=kind, **values)
        )
