"""The first start, and accounts after it."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from bastide.domain.errors import NotFound, Unauthorized, ValidationFailed
from bastide.domain.scope import Scope
from bastide.services.accounts import AccountService
from bastide.services.caller import Caller
from bastide.services.first_credentials import FirstCredentials
from bastide.services.keys import KeyService
from bastide.settings import Settings
from bastide.store.database import Database


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BASTIDE_CONFIG", str(tmp_path / "none.toml"))
    return Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run")


async def test_the_first_start_writes_a_working_admin_key(
    database: Database, settings: Settings
) -> None:
    """The file holds credentials that work, readable by its owner alone."""
    account = await AccountService(database, settings).bootstrap()
    found = FirstCredentials.read(settings.credentials_file)
    assert found is not None
    assert found.account_id == account.id
    assert found.api_url == settings.api_url
    caller = await KeyService(database).authenticate(found.client_id, found.client_secret)
    assert (caller.account_id, caller.scope) == (account.id, Scope.ADMIN)
    assert stat.S_IMODE(settings.credentials_file.stat().st_mode) == 0o600
    assert found.client_secret not in repr(found)
    assert [path.name for path in settings.credentials_file.parent.iterdir()] == [
        settings.credentials_file.name
    ]


async def test_later_starts_change_nothing(database: Database, settings: Settings) -> None:
    """Neither a restart, nor several at once, nor a removed file makes another key."""
    service = AccountService(database, settings)
    accounts = await asyncio.gather(*(service.bootstrap() for _ in range(4)))
    assert len({account.id for account in accounts}) == 1
    before = settings.credentials_file.read_bytes()
    await service.bootstrap()
    assert settings.credentials_file.read_bytes() == before
    settings.credentials_file.unlink()
    await service.bootstrap()
    assert not settings.credentials_file.exists()
    admin = Caller(accounts[0].id, Scope.ADMIN, "test")
    assert len(await KeyService(database).all(admin)) == 1


async def test_a_start_that_failed_is_made_again(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between file and commit leaves no account; the next start makes a fresh key."""
    service = AccountService(database, settings)
    write = FirstCredentials.write

    def write_and_crash(self: FirstCredentials, path: Path) -> None:
        write(self, path)
        raise OSError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(FirstCredentials, "write", write_and_crash)
        with pytest.raises(OSError, match="crash"):
            await service.bootstrap()
    stale = FirstCredentials.read(settings.credentials_file)
    assert stale is not None
    assert await service.all() == []
    await service.bootstrap()
    fresh = FirstCredentials.read(settings.credentials_file)
    assert fresh is not None
    keys = KeyService(database)
    await keys.authenticate(fresh.client_id, fresh.client_secret)
    with pytest.raises(Unauthorized):
        await keys.authenticate(stale.client_id, stale.client_secret)


async def test_more_accounts(database: Database, settings: Settings) -> None:
    """Accounts are made, found and listed; names are checked."""
    service = AccountService(database, settings)
    made = await service.create("Zoë's shop")
    assert (await service.get(made.id)).name == "Zoë's shop"
    assert [account.id for account in await service.all()] == [made.id]
    with pytest.raises(NotFound):
        await service.get("acc_none")
    for name in ("", "x" * 256, "a\x00b"):
        with pytest.raises(ValidationFailed):
            await service.create(name)


def test_an_unreadable_file_is_no_credentials(tmp_path: Path) -> None:
    """Missing, empty or foreign content gives nothing, not an exception."""
    path = tmp_path / "credentials.json"
    assert FirstCredentials.read(path) is None
    for text in ("", "{}", "[1]", "\x00"):
        path.write_text(text)
        assert FirstCredentials.read(path) is None
