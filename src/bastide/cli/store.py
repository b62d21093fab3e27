"""The server's own database, opened by an operator on the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from bastide.services.accounts import AccountService
    from bastide.services.caller import Caller
    from bastide.services.keys import KeyService

T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """The services an operator uses directly, and the admin on whose behalf."""

    accounts: AccountService
    keys: KeyService
    caller: Caller


def with_store(act: Callable[[Store], Awaitable[T]], account: str | None = None) -> T:
    """What `act` gives, as an admin of `account` (default: the first).

    Root is given up for the api's user first, so that no file becomes root's.

    Raises:
        Fault: this is not root, the server was never started, or the services refuse.
    """
    import asyncio

    from bastide.api.directories import make_directories
    from bastide.cli.configuration import server_settings
    from bastide.cli.fault import Fault, need_root
    from bastide.domain.errors import BastideError
    from bastide.domain.scope import Scope
    from bastide.identity import UnknownUserError, become
    from bastide.services.accounts import AccountService
    from bastide.services.caller import Caller
    from bastide.services.keys import KeyService
    from bastide.store.database import Database
    from bastide.store.migrate import migrate

    need_root("changing keys and accounts directly")
    settings = server_settings()
    try:
        make_directories(settings)
        become(settings.user, str(settings.state_dir))
    except (UnknownUserError, OSError) as error:
        raise Fault(str(error), "script/up makes users and directories") from None

    async def run() -> T:
        database = Database(settings.database_url)
        try:
            await migrate(database)
            accounts = AccountService(database, settings)
            first = await accounts.bootstrap()
            chosen = first if account is None else await accounts.get(account)
            caller = Caller(account_id=chosen.id, scope=Scope.ADMIN, credential="operator")
            return await act(Store(accounts, KeyService(database), caller))
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except BastideError as error:
        raise Fault(str(error)) from None
