"""SSH into a workspace (spec 4.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bastide.domain.errors import Conflict, NotFound, ValidationFailed
from bastide.domain.instant import now
from bastide.domain.lifecycle import DesiredState
from bastide.domain.ssh import (
    MAX_KEYS,
    USER,
    AuthorizedKey,
    SshConfig,
    check_password,
    hash_password,
    new_password,
    new_ssh_id,
    read_public_key,
)
from bastide.services.caller import Caller
from bastide.services.failures import engine_failures
from bastide.services.machines import ssh_of
from bastide.services.reach import Reach, changed_network
from bastide.services.workspaces import WorkspaceService
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.tables import Workspace
from bastide.store.workspaces import Workspaces

_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class SshView:
    """SSH of a workspace. `config` is None as long as nobody asked for it."""

    ssh_id: str | None
    config: SshConfig | None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, row: Workspace, password: str | None = None) -> SshView:
        """What the row says; `password` is one that was made just now."""
        return cls(row.ssh_id, ssh_of(row), password)


class SshService:
    """Enables, disables, and says who may enter. Everything is in force when a call returns."""

    def __init__(
        self, database: Database, workspaces: WorkspaceService, reach: Reach, password_key: str
    ) -> None:
        self._database = database
        self._workspaces = workspaces
        self._reach = reach
        self._password_key = password_key

    async def get(self, caller: Caller, reference: str) -> SshView:
        """What there is; no secret."""
        return SshView.of((await self._workspaces.get(caller, reference)).row)

    async def enable(self, caller: Caller, reference: str) -> SshView:
        """Open the server, with a new one-time password unless the owner has chosen one.

        Raises:
            Conflict: the workspace is being deleted.
            VmUnavailable: stored, but the machine could not be told.
        """
        password = new_password()
        kept = await asyncio.to_thread(hash_password, password, self._password_key, chosen=False)
        shown = True

        def change(config: SshConfig) -> SshConfig:
            nonlocal shown
            shown = config.password is None or not config.password.chosen
            values = {"enabled": True} | ({"password": kept} if shown else {})
            return config.model_copy(update=values)

        row = await self._change(caller, reference, change)
        return SshView.of(row, password if shown else None)

    async def disable(self, caller: Caller, reference: str) -> SshView:
        """Close the server: sessions end. Keys, password and host key are kept."""
        row = await self._change(
            caller, reference, lambda config: config.model_copy(update={"enabled": False})
        )
        return SshView.of(row)

    async def set_password(
        self, caller: Caller, reference: str, password: str, user: str
    ) -> SshView:
        """Replace the password by the owner's own.

        Raises:
            ValidationFailed: it cannot be used, or the user is not root.
        """
        _only_root(user)
        try:
            check_password(password)
        except ValueError as error:
            raise ValidationFailed("password", f"password {error}") from None
        kept = await asyncio.to_thread(hash_password, password, self._password_key, chosen=True)
        row = await self._change(
            caller, reference, lambda config: config.model_copy(update={"password": kept})
        )
        return SshView.of(row)

    async def add_key(
        self, caller: Caller, reference: str, public_key: str, user: str
    ) -> tuple[SshView, AuthorizedKey]:
        """Let one more key in; one that is in already stays as it is.

        Raises:
            ValidationFailed: it is no public key, or the user is not root.
            Conflict: there are 50 already.
        """
        _only_root(user)
        try:
            key = read_public_key(public_key, now())
        except ValueError as error:
            raise ValidationFailed("public_key", f"public_key {error}") from None

        def change(config: SshConfig) -> SshConfig:
            if any(known.fingerprint == key.fingerprint for known in config.keys):
                return config
            if len(config.keys) >= MAX_KEYS:
                raise Conflict(
                    f"The workspace has {MAX_KEYS} SSH keys already. Remove one with DELETE "
                    "/workspace/:id/ssh/keys/:fingerprint.",
                    details={"field": "public_key"},
                )
            return config.model_copy(update={"keys": (*config.keys, key)})

        view = SshView.of(await self._change(caller, reference, change))
        known = view.config.keys if view.config else ()
        return view, next((each for each in known if each.fingerprint == key.fingerprint), key)

    async def remove_key(self, caller: Caller, reference: str, fingerprint: str) -> SshView:
        """Let a key in no more; what it opened is closed.

        Raises:
            NotFound: there is no such key.
        """

        def change(config: SshConfig) -> SshConfig:
            kept = tuple(key for key in config.keys if key.fingerprint != fingerprint)
            if len(kept) == len(config.keys):
                raise NotFound("The workspace has no SSH key of that fingerprint.")
            return config.model_copy(update={"keys": kept})

        return SshView.of(await self._change(caller, reference, change))

    async def _change(
        self, caller: Caller, reference: str, change: Callable[[SshConfig], SshConfig]
    ) -> Workspace:
        """Commit, unless nothing changes, then put in force."""
        seen = (await self._workspaces.get(caller, reference)).row
        for _ in range(_ATTEMPTS):
            try:
                done = await self._commit(caller, seen.id, change)
            except Duplicate:  # another workspace has that ssh_id
                continue
            if done:
                break
        else:
            raise Conflict("The workspace is changing too fast; try again.")
        with engine_failures():
            fresh = await self._reach.put_in_force(seen.id)
        if fresh is None:
            raise NotFound("The workspace was deleted.")
        return fresh

    async def _commit(
        self, caller: Caller, workspace_id: str, change: Callable[[SshConfig], SshConfig]
    ) -> bool:
        """Write what changes; False when the row changed meanwhile."""
        async with self._database.write() as session:
            workspaces = Workspaces(session)
            row = caller.require(await workspaces.get(workspace_id))
            if row.desired_state is DesiredState.DELETED:
                raise Conflict("The workspace is being deleted.", state="deleting")
            before = ssh_of(row)
            after = change(before or SshConfig.make(enabled=False))
            if after == before:
                return True
            values: dict[str, Any] = {
                "ssh": after.model_dump(mode="json"),
                "network": changed_network(row),
            }
            if row.ssh_id is None:
                values["ssh_id"] = new_ssh_id()
            return await workspaces.update(row.id, values, expected={"updated_at": row.updated_at})


def _only_root(user: str) -> None:
    if user != USER:
        raise ValidationFailed("user", "user must be root: it is the one account of a workspace")
