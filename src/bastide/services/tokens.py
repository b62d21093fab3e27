"""Bearer tokens of the control plane (spec control-plane 2).

Two kinds are accepted: scoped tokens from POST /tokens, signed with the control key, and the
30-day token of one workspace, which is a gateway token and is good for its own workspace only.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import jwt

from bastide.domain.errors import BadRequest, Unauthorized, ValidationFailed
from bastide.domain.instant import now
from bastide.domain.scope import Scope
from bastide.gateway.keys import control_key, gateway_key
from bastide.gateway.tokens import InvalidTokenError, verify
from bastide.services.caller import Caller
from bastide.services.keys import require_namespace
from bastide.settings import Settings
from bastide.store.database import Database
from bastide.store.keys import RevokedTokens
from bastide.store.workspaces import Workspaces

ALGORITHM: Final = "HS256"
ISSUER: Final = "bastide"
AUDIENCE: Final = "bastide-api"
DEFAULT_TTL: Final = 900
LONGEST_TTL: Final = 3600
_LONGEST_TOKEN = 8192
_REFUSED = (
    "The bearer token is not valid here or has expired. "
    "Get a new one with POST /tokens, or send X-Client-ID and X-Client-Secret."
)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A scoped token; `ttl` in seconds."""

    token: str = field(repr=False)
    jti: str
    scope: Scope
    ttl: int
    expires_at: datetime


class TokenService:
    """Issues, revokes and checks bearer tokens. The signing keys are read at first use."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    @cached_property
    def _control_key(self) -> str:
        return control_key(self._settings)

    @cached_property
    def _gateway_key(self) -> str:
        return gateway_key(self._settings)

    async def issue(
        self,
        caller: Caller,
        scope: Scope,
        *,
        namespace: str | None = None,
        workspace: str | None = None,
        ttl: int = DEFAULT_TTL,
        label: str | None = None,
    ) -> IssuedToken:
        """A short-lived token for one namespace or one workspace of the caller's account.

        Args:
            caller: an admin credential.
            scope: `namespace` or `workspace`.
            namespace: slug, required for scope `namespace`.
            workspace: id or slug, required for scope `workspace`.
            ttl: 1 to 3600 seconds.
            label: for people; it is in the token, readable by whoever holds it.

        Raises:
            Forbidden: the caller is no admin.
            ValidationFailed: a field is wrong or missing.
            BadRequest: the account has no such workspace.
        """
        caller.require_admin()
        if not 1 <= ttl <= LONGEST_TTL:
            raise ValidationFailed("ttl", f"ttl must be 1 to {LONGEST_TTL} seconds.")
        claims: dict[str, Any] = {}
        if scope is Scope.NAMESPACE:
            claims["ns"] = require_namespace(namespace)
        elif scope is Scope.WORKSPACE:
            claims["ws"] = await self._workspace(caller, workspace)
        else:
            raise ValidationFailed("scope", "scope must be namespace or workspace.")
        if label is not None:
            claims["label"] = label
        return self._sign(caller.account_id, scope, ttl, claims)

    async def _workspace(self, caller: Caller, reference: str | None) -> str:
        """The id of the workspace a token is for."""
        if not reference:
            raise ValidationFailed("workspaceId", "workspaceId is required for scope workspace.")
        async with self._database.read() as session:
            found = await Workspaces(session).find(caller.account_id, reference)
        if found is None:
            raise BadRequest(
                "There is no such workspace in your account. Check workspaceId.",
                details={"field": "workspaceId"},
            )
        return found.id

    def _sign(self, account_id: str, scope: Scope, ttl: int, claims: dict[str, Any]) -> IssuedToken:
        issued = int(now().timestamp())
        jti = secrets.token_hex(16)
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": account_id,
            "scope": str(scope),
            "iat": issued,
            "exp": issued + ttl,
            "jti": jti,
            **claims,
        }
        token = jwt.encode(payload, self._control_key, algorithm=ALGORITHM)
        return IssuedToken(token, jti, scope, ttl, datetime.fromtimestamp(issued + ttl, UTC))

    async def revoke(self, token: str) -> None:
        """Take back a scoped token before its time.

        Raises:
            Unauthorized: it is no scoped token in force.
        """
        payload = self._scoped_payload(token)
        if payload is None:
            raise Unauthorized(_REFUSED)
        at = now()
        async with self._database.write() as session:
            revoked = RevokedTokens(session)
            await revoked.forget_expired(at - timedelta(minutes=1))
            await revoked.add(payload["jti"], datetime.fromtimestamp(payload["exp"], UTC))

    async def authenticate(self, token: str) -> Caller:
        """Who presents this bearer token.

        Raises:
            Unauthorized: it is not ours, expired, revoked or of an older generation.
        """
        if len(token) <= _LONGEST_TOKEN:
            payload = self._scoped_payload(token)
            caller = await (
                self._workspace_caller(token) if payload is None else self._scoped_caller(payload)
            )
            if caller is not None:
                return caller
        raise Unauthorized(_REFUSED)

    def _scoped_payload(self, token: str) -> dict[str, Any] | None:
        """The claims of a scoped token in force, or None."""
        try:
            payload: dict[str, Any] = jwt.decode(
                token,
                self._control_key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "iat", "jti", "sub", "scope"]},
            )
        except (jwt.InvalidTokenError, UnicodeError):
            return None
        return payload

    async def _scoped_caller(self, payload: dict[str, Any]) -> Caller | None:
        """What a scoped token opens, unless it was taken back."""
        async with self._database.read() as session:
            if await RevokedTokens(session).contains(payload["jti"]):
                return None
        return Caller(
            account_id=payload["sub"],
            scope=Scope(payload["scope"]),
            credential=payload["jti"],
            namespace=payload.get("ns"),
            workspace_id=payload.get("ws"),
        )

    async def _workspace_caller(self, token: str) -> Caller | None:
        """What the 30-day token of a workspace opens: that workspace, until it is rotated.

        While runtime access is disabled it opens nothing; else it could undo just that.
        """
        try:
            claims = verify(self._gateway_key, token, now())
        except (InvalidTokenError, UnicodeError):
            return None
        if claims.kind != "workspace":
            return None
        async with self._database.read() as session:
            workspace = await Workspaces(session).get(claims.workspace_id)
        if (
            workspace is None
            or workspace.generation != claims.generation
            or not workspace.runtime_enabled
        ):
            return None
        return Caller(
            account_id=workspace.account_id,
            scope=Scope.WORKSPACE,
            credential=claims.token_id,
            workspace_id=workspace.id,
        )
