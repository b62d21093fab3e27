"""The whole API in one process, over a real database, without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from bastide.api.app import create_app
from bastide.api.assembly import Outside, assemble
from bastide.api.context import Services
from bastide.domain.scope import Scope
from bastide.services.first_credentials import FirstCredentials
from bastide.services.keys import IssuedKey
from bastide.settings import Settings
from bastide.store.tables import Account, Workspace
from bastide.store.workspaces import Workspaces


def headers_of(client_id: str, secret: str) -> dict[str, str]:
    """The headers of an API key."""
    return {"X-Client-ID": client_id, "X-Client-Secret": secret}


@dataclass
class Stage:
    """A started application and a client that sends the first admin key."""

    app: FastAPI
    services: Services
    client: httpx.AsyncClient
    admin: dict[str, str]
    account: Account

    async def key(self, scope: Scope, **reach: str) -> tuple[IssuedKey, dict[str, str]]:
        """Another key of the first account, and its headers."""
        caller = await self.services.keys.authenticate(*self.admin.values())
        issued = await self.services.keys.create(caller, scope, **reach)
        return issued, headers_of(issued.client_id, issued.client_secret)

    async def row(self, account: Account | None = None, **values: Any) -> Workspace:
        """A row of a workspace that no engine knows."""
        owner = self.account if account is None else account
        given = {"name": "w", "image": "debian-12", "cpus": 1.0, "memory_mb": 512, "disk_mb": 4096}
        async with self.services.database.write() as session:
            return await Workspaces(session).insert(
                Workspace(account_id=owner.id, **{**given, **values})
            )


@asynccontextmanager
async def staged(directory: Path, outside: Outside | None = None) -> AsyncIterator[Stage]:
    """Start the application in `directory`, and stop it; `outside` None: there is no node."""
    settings = Settings(state_dir=directory / "state", run_dir=directory / "run")
    app = create_app(lambda: assemble(settings, outside))
    async with app.router.lifespan_context(app):
        first = FirstCredentials.read(settings.credentials_file)
        assert first is not None
        services: Services = app.state.services
        admin = headers_of(first.client_id, first.client_secret)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://api.test", headers=admin
        ) as client:
            account = await services.accounts.get(first.account_id)
            yield Stage(app, services, client, admin, account)


def check_envelope(response: httpx.Response) -> dict[str, Any]:
    """Whatever the answer is, it has the envelope of the specification (1.2)."""
    body = response.json()
    assert isinstance(body, dict)
    if response.status_code < 400:
        assert body["success"] is True
        return body
    assert body["success"] is False
    assert body["error"] == body["code"]
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert "details" not in body or isinstance(body["details"], dict)
    return body


def refusal(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an expected refusal."""
    body = check_envelope(response)
    assert (response.status_code, body["code"]) == (status, code), body
    return body
