"""Images (spec 4.16)."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success

router = APIRouter(tags=["Images"])
Category = Literal["os", "devtools", "runtime", "ai", "browser", "database", "infra", "all"]


@router.get("/workspace/images", summary="List images")
async def list_images(
    caller: CallerOf,
    services: ServicesOf,
    search: str | None = None,
    category: Category | None = None,
) -> Envelope:
    """What a workspace can be made of; `search` looks at id, label, description and contents."""
    caller.require_workspaces()
    images, categories = await services.catalogue.search(search, category)
    return success(images=images, categories=categories)
