"""Minting and checking gateway tokens, and the file of their key."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from bastide.gateway.keys import KeyFileError, gateway_key
from bastide.gateway.tokens import AUDIENCE, ISSUER, InvalidTokenError, mint, verify
from bastide.settings import Settings

KEY = "ab" * 32
NOW = datetime(2026, 11, 21, 12, 0, 0, 500_000, tzinfo=UTC)
HOUR = timedelta(hours=1)


def made(ttl: timedelta = HOUR) -> str:
    token, _ = mint(KEY, "ws_a1b2c3d4", 3, "gateway", "10.201.0.2", 9990, ttl, NOW)
    return token


def other(key: str = KEY, algorithm: str = "HS256", **changes: Any) -> str:
    """A token with changed claims."""
    claims = jwt.decode(made(), options={"verify_signature": False}) | changes
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None}, key, algorithm
    )


def test_claims_come_back() -> None:
    """What was minted is what is read, with times in whole seconds."""
    token, expires = mint(KEY, "ws_a1b2c3d4", 3, "workspace", "10.201.0.2", 9990, HOUR, NOW)
    claims = verify(KEY, token, NOW)
    assert claims.workspace_id == "ws_a1b2c3d4"
    assert (claims.generation, claims.kind) == (3, "workspace")
    assert (claims.address, claims.port) == ("10.201.0.2", 9990)
    assert claims.issued_at == NOW.replace(microsecond=0)
    assert claims.expires_at == expires == NOW.replace(microsecond=0) + HOUR


def test_tokens_are_never_the_same() -> None:
    """Two tokens of the same moment differ."""
    assert made() != made()


def test_claim_names_on_the_wire() -> None:
    """The claims have the names the edge reads, and the header the vendor's samples show."""
    token = made()
    assert token.startswith("eyJhbGciOiJIUzI1NiIs")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert set(claims) == {
        "iss", "aud", "ws", "gen", "kind", "ip", "port", "iat", "exp", "jti",
    }  # fmt: skip
    assert (claims["iss"], claims["aud"]) == (ISSUER, AUDIENCE)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "f" * 64,
        other(algorithm="HS512"),
        other(key="cd" * 32),
        other(aud="bastide-api"),
        other(aud=None),
        other(iss="x"),
        other(exp=None),
        other(exp="1"),
        other(exp=True),
        other(jti=None),
        other(ws="../etc"),
        other(ws="ws_a1b2c3d4\n"),
        other(kind="admin"),
        other(gen="3"),
        other(gen=None),
        other(ip="::1"),
        other(ip=3),
        other(exp=10**30),
        jwt.encode(json.loads("{}"), "", algorithm="none"),
    ],
)
def test_refused(token: str) -> None:
    """Anything but a right token is refused, and the message holds nothing of it."""
    with pytest.raises(InvalidTokenError) as refused:
        verify(KEY, token, NOW)
    assert len(token) < 8 or token not in str(refused.value)


def test_expiry_is_compared_with_now() -> None:
    """A token is good until its last second has come."""
    token = made(timedelta(seconds=10))
    verify(KEY, token, NOW + timedelta(seconds=9))
    with pytest.raises(InvalidTokenError):
        verify(KEY, token, NOW + timedelta(seconds=10))


def test_key_file(tmp_path: Path) -> None:
    """The key is made once, 0600, the same for callers at the same time and after."""
    settings = Settings(state_dir=tmp_path)
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: gateway_key(settings), range(64)))
    assert keys == {gateway_key(settings)}
    files = list((tmp_path / "secrets").iterdir())
    assert [file.name for file in files] == ["gateway.key"]
    assert files[0].stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["link", "fifo", "text"])
def test_hostile_key_file(tmp_path: Path, what: str) -> None:
    """A link, a pipe or another text in the key's place is an error, not a key."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    key = secrets / "gateway.key"
    if what == "link":
        (tmp_path / "elsewhere").write_text("ab" * 32)
        key.symlink_to(tmp_path / "elsewhere")
    elif what == "fifo":
        os.mkfifo(key)
    else:
        key.write_text("not a key")
    with pytest.raises(KeyFileError):
        gateway_key(Settings(state_dir=tmp_path))
