"""Gateway tokens: the JWTs that open one workspace's runtime at the edge (spec runtime §3).

The edge checks the same claims in its own configuration (`bastide.edge`); what is minted here is
what it accepts. Issuer and audience are fixed, so a scoped token of the control plane is no
gateway token and a gateway token is no scoped token, whatever keys they are signed with.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Literal, get_args

import jwt

from bastide.domain.machine import WORKSPACE_ID

ALGORITHM = "HS256"
ISSUER = "bastide"
AUDIENCE = "bastide-gateway"

Kind = Literal["gateway", "workspace"]

GATEWAY_TTL = timedelta(hours=1)
WORKSPACE_TTL = timedelta(days=30)


class InvalidTokenError(Exception):
    """The text is no gateway token in force; the message says why and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class GatewayClaims:
    """What a gateway token says.

    `generation` is the workspace's token generation at the time it was minted: rotation raises
    it, and the edge refuses every older one. `address` and `port` tell clients where the machine
    was then; nothing routes by them.
    """

    workspace_id: str
    generation: int
    kind: Kind
    address: str
    port: int
    issued_at: datetime
    expires_at: datetime
    token_id: str


def mint(  # noqa: PLR0917 - the claims, in their order
    signing_key: str,
    workspace_id: str,
    generation: int,
    kind: Kind,
    address: str,
    port: int,
    ttl: timedelta,
    now: datetime,
) -> tuple[str, datetime]:
    """Sign a gateway token.

    Args:
        signing_key: the text of the gateway key (`bastide.gateway.keys`).
        workspace_id: the only workspace it opens.
        generation: the workspace's token generation now.
        kind: `gateway` (an hour, spec §3.1) or `workspace` (30 days, §3.2).
        address: the machine's private address.
        port: the port of its runtime server.
        ttl: how long it is good, whole seconds.
        now: an aware time.

    Returns:
        The token and when it ends (UTC, whole seconds).
    """
    issued = int(now.timestamp())
    expires = issued + int(ttl.total_seconds())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "ws": workspace_id,
        "gen": generation,
        "kind": kind,
        "ip": address,
        "port": port,
        "iat": issued,
        "exp": expires,
        "jti": secrets.token_hex(16),
    }
    token = jwt.encode(claims, signing_key, algorithm=ALGORITHM)
    return token, datetime.fromtimestamp(expires, UTC)


def verify(signing_key: str, token: str, now: datetime) -> GatewayClaims:
    """Check signature, algorithm, issuer, audience and times, as the edge does.

    Whether the generation is still in force is the caller's to compare with its row.

    Raises:
        InvalidTokenError: the token is malformed, signed otherwise, not ours or not in force.
    """
    try:
        payload: dict[str, Any] = jwt.decode(
            token,
            signing_key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            # Times are compared with `now` below, not with the clock of the library.
            options={
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "require": ["exp", "iat", "jti", "ws", "gen", "kind", "ip", "port"],
            },
        )
    except jwt.InvalidTokenError as error:
        raise InvalidTokenError(f"not a gateway token: {type(error).__name__}") from None
    claims = _claims(payload)
    if claims.expires_at <= now:
        raise InvalidTokenError("the gateway token has expired")
    return claims


def _claims(payload: dict[str, Any]) -> GatewayClaims:
    """The payload as claims; a claim of a wrong type is refused."""
    try:
        workspace_id, kind, token_id = payload["ws"], payload["kind"], payload["jti"]
        if not isinstance(workspace_id, str) or not re.fullmatch(WORKSPACE_ID, workspace_id):
            raise InvalidTokenError("the claim ws is no workspace id")
        if kind not in get_args(Kind) or not isinstance(token_id, str):
            raise InvalidTokenError("the claim kind or jti is wrong")
        if not isinstance(payload["ip"], str):
            raise InvalidTokenError("the claim ip is no text")
        numbers = [payload[name] for name in ("gen", "port", "iat", "exp")]
        if not all(type(number) is int for number in numbers):
            raise InvalidTokenError("a claim is no whole number")
        generation, port, issued, expires = numbers
        return GatewayClaims(
            workspace_id=workspace_id,
            generation=generation,
            kind=kind,
            address=str(IPv4Address(payload["ip"])),
            port=port,
            issued_at=datetime.fromtimestamp(issued, UTC),
            expires_at=datetime.fromtimestamp(expires, UTC),
            token_id=token_id,
        )
    except (AddressValueError, OverflowError, OSError, TypeError, ValueError) as error:
        raise InvalidTokenError(f"a claim is wrong: {type(error).__name__}") from None
