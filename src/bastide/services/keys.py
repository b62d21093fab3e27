"""API keys: a client id and a secret that is shown once (spec control-plane 2)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from bastide.domain.errors import NotFound, Unauthorized, ValidationFailed
from bastide.domain.instant import now
from bastide.domain.namespace import check_namespace
from bastide.domain.scope import Scope
from bastide.services.caller import Caller
from bastide.store.database import Database
from bastide.store.keys import Keys
from bastide.store.tables import ApiKey
from bastide.store.workspaces import Workspaces

CLIENT_PREFIX: Final = "bastide_"
SECRET_PREFIX: Final = "sk_"  # noqa: S105 - only the beginning
_CLIENT = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_LONGEST_SECRET = 256
_TOUCH_EVERY = timedelta(minutes=1)
# Compared with when there is no such key, so that the answer takes as long.
_NO_HASH = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key with its secret, which is nowhere else."""

    key: ApiKey
    client_secret: str = field(repr=False)

    @property
    def client_id(self) -> str:
        """The public half."""
        return self.key.client_id


def hash_secret(secret: str) -> str:
    """SHA-256 in hexadecimal. Enough for a secret of 256 random bits: nothing to guess."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def new_key(
    account_id: str,
    scope: Scope,
    *,
    namespace: str | None = None,
    workspace_id: str | None = None,
    label: str | None = None,
) -> IssuedKey:
    """A fresh key, not yet in the database."""
    secret = SECRET_PREFIX + secrets.token_hex(32)
    key = ApiKey(
        account_id=account_id,
        client_id=CLIENT_PREFIX + secrets.token_hex(12),
        secret_hash=hash_secret(secret),
        scope=scope,
        namespace=namespace,
        workspace_id=workspace_id,
        label=label,
    )
    return IssuedKey(key, secret)


class KeyService:
    """Issues, lists, revokes and checks API keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        caller: Caller,
        scope: Scope,
        *,
        namespace: str | None = None,
        workspace: str | None = None,
        label: str | None = None,
    ) -> IssuedKey:
        """A new key of the caller's account; its secret is shown this once.

        Args:
            caller: an admin credential.
            scope: how far the key reaches.
            namespace: required for scope `namespace`, refused for the others.
            workspace: id or slug; required for scope `workspace`, refused for the others.
            label: for people.

        Raises:
            Forbidden: the caller is no admin.
            ValidationFailed: namespace, workspace or label do not fit the scope.
            NotFound: no such workspace.
        """
        caller.require_admin()
        _check_reach(scope, namespace, workspace)
        if label is not None and (len(label) > 255 or not label.isprintable()):
            raise ValidationFailed("label", "label must be at most 255 printable characters.")
        async with self._database.write() as session:
            workspace_id = None
            if workspace is not None:
                found = await Workspaces(session).find(caller.account_id, workspace)
                workspace_id = caller.require(found).id
            issued = new_key(
                caller.account_id,
                scope,
                namespace=namespace,
                workspace_id=workspace_id,
                label=label,
            )
            await Keys(session).insert(issued.key)
        return issued

    async def all(self, caller: Caller) -> list[ApiKey]:
        """The keys of the caller's account, revoked ones too.

        Raises:
            Forbidden: the caller is no admin.
        """
        caller.require_admin()
        async with self._database.read() as session:
            return await Keys(session).of(caller.account_id)

    async def revoke(self, caller: Caller, reference: str) -> None:
        """Revoke a key by its id or client id, at once and for good.

        Raises:
            Forbidden: the caller is no admin.
            NotFound: there is no such key in force.
        """
        caller.require_admin()
        if _CLIENT.fullmatch(reference):
            async with self._database.write() as session:
                if await Keys(session).revoke(caller.account_id, reference, now()):
                    return
        raise NotFound("There is no such key in force. List the keys with GET /keys.")

    async def authenticate(self, client_id: str, secret: str) -> Caller:
        """Who presents this id and secret.

        Raises:
            Unauthorized: unknown, wrong or revoked; the answer does not say which.
        """
        key = None
        if _CLIENT.fullmatch(client_id) and len(secret) <= _LONGEST_SECRET:
            async with self._database.read() as session:
                key = await Keys(session).by_client(client_id)
        expected = _NO_HASH if key is None else key.secret_hash
        right = hmac.compare_digest(expected, hash_secret(secret[:_LONGEST_SECRET]))
        if key is None or not right or key.revoked_at is not None:
            raise Unauthorized(
                "X-Client-ID and X-Client-Secret are not those of a key in force. "
                "bastide env prints the first key of this server."
            )
        await self._touch(key)
        return Caller(
            account_id=key.account_id,
            scope=key.scope,
            credential=key.id,
            namespace=key.namespace,
            workspace_id=key.workspace_id,
        )

    async def _touch(self, key: ApiKey) -> None:
        """Note the use, at most once a minute: a write costs more than the check."""
        at = now()
        if key.last_used_at is None or at - key.last_used_at > _TOUCH_EVERY:
            async with self._database.write() as session:
                await Keys(session).touch(key.id, at)


def require_namespace(namespace: str | None) -> str:
    """The namespace that a credential is to be bound to.

    Raises:
        ValidationFailed: none, or none that could be one.
    """
    try:
        return check_namespace(namespace or "")
    except ValueError as error:
        raise ValidationFailed("namespace", f"namespace {error}.") from None


def _check_reach(scope: Scope, namespace: str | None, workspace: str | None) -> None:
    """Namespace and workspace are given exactly where the scope has use for them."""
    if scope is Scope.NAMESPACE:
        require_namespace(namespace)
    if scope is Scope.WORKSPACE and workspace is None:
        raise ValidationFailed("workspaceId", "workspaceId is required for scope workspace.")
    if scope is not Scope.NAMESPACE and namespace is not None:
        raise ValidationFailed("namespace", "namespace belongs to scope namespace; leave it out.")
    if scope is not Scope.WORKSPACE and workspace is not None:
        raise ValidationFailed(
            "workspaceId", "workspaceId belongs to scope workspace; leave it out."
        )
