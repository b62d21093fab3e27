"""API keys. The vendor's cloud does this in its dashboard; here it is an API of ours."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.api.routes.tokens import Label
from bastide.domain.instant import iso
from bastide.domain.scope import Scope
from bastide.store.tables import ApiKey

router = APIRouter(prefix="/keys", tags=["Authentication"])


class KeyRequest(BaseModel):
    """Body of POST /keys."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    scope: Scope = Scope.ADMIN
    namespace: str | None = Field(None, description="slug, for scope namespace")
    workspaceId: str | None = Field(None, description="id or slug, for scope workspace")  # noqa: N815 - as in /tokens
    label: Label | None = None


@router.post("", status_code=201, summary="Make an API key")
async def create_key(body: KeyRequest, caller: CallerOf, services: ServicesOf) -> Envelope:
    """A new key; `client_secret` is shown this once. Needs an admin credential."""
    issued = await services.keys.create(
        caller,
        body.scope,
        namespace=body.namespace,
        workspace=body.workspaceId,
        label=body.label,
    )
    return success(201, key={**shown(issued.key), "client_secret": issued.client_secret})


@router.get("", summary="List API keys")
async def list_keys(caller: CallerOf, services: ServicesOf) -> Envelope:
    """All keys of the account, revoked ones too, without secrets."""
    return success(keys=[shown(key) for key in await services.keys.all(caller)])


@router.delete("/{key}", summary="Revoke an API key")
async def revoke_key(key: str, caller: CallerOf, services: ServicesOf) -> Envelope:
    """Revoke a key by its id or client id, at once and for good."""
    await services.keys.revoke(caller, key)
    return success()


def shown(key: ApiKey) -> dict[str, Any]:
    """A key as clients see it."""
    return {
        "id": key.id,
        "client_id": key.client_id,
        "scope": key.scope,
        "namespace": key.namespace,
        "workspaceId": key.workspace_id,
        "label": key.label,
        "created_at": iso(key.created_at),
        "last_used_at": key.last_used_at and iso(key.last_used_at),
        "revoked_at": key.revoked_at and iso(key.revoked_at),
    }
