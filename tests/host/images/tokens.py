"""A token service as public registries have it: a registry sends clients here to log in."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.host.images.front import served

ISSUER, SERVICE = "tests", "registry of the tests"


@dataclass
class Tokens:
    """Gives out tokens for repositories below `open/`, and for all of them after a login.

    `asked` are the scopes it was asked for, with the Authorization that came along.
    """

    certificate: Path
    login: tuple[str, str]
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    @property
    def registry(self) -> dict[str, str]:
        """What the registry must know."""
        return {
            "realm": f"http://{self.address}/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self.certificate),
        }

    def answer(self, query: dict[str, list[str]], authorization: str | None) -> str | None:
        """A token; None: wrong credentials."""
        scope = query.get("scope", [""])[0]
        self.asked.append((scope, authorization))
        known = base64.b64encode(":".join(self.login).encode()).decode()
        if authorization is not None and authorization != f"Basic {known}":
            return None
        _, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        may = authorization is not None or name.startswith("open/")
        access = {"type": "repository", "name": name, "actions": actions.split(",")}
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": "", "aud": SERVICE, "jti": str(now), "iat": now,
            "nbf": now - 60, "exp": now + 600, "access": [access] if may and name else [],
        }  # fmt: skip
        key = serialization.load_pem_private_key(
            self.certificate.with_suffix(".key").read_bytes(), None
        )
        found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        chain = base64.b64encode(found.public_bytes(serialization.Encoding.DER)).decode()
        return jwt.encode(claims, key, "ES256", {"x5c": [chain]})  # type: ignore[arg-type]


@contextmanager
def token_service(certificate: Path, login: tuple[str, str]) -> Iterator[Tokens]:
    """A service that runs."""
    tokens = Tokens(certificate, login)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            token = tokens.answer(query, self.headers.get("Authorization"))
            body = json.dumps({"token": token} if token else {"details": "no"}).encode()
            self.send_response(200 if token else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with served(Handler) as tokens.address:
        yield tokens
