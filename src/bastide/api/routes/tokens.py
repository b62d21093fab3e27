"""POST /tokens (spec control-plane 2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from bastide.api.authentication import CallerOf
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.domain.instant import iso
from bastide.domain.scope import Scope
from bastide.services.tokens import DEFAULT_TTL, LONGEST_TTL

router = APIRouter(tags=["Authentication"])


def printable(value: str) -> str:
    """Text without control characters.

    Raises:
        ValueError: it has some.
    """
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic wants ValueError
    return value


Label = Annotated[str, AfterValidator(printable), Field(max_length=255)]


class TokenRequest(BaseModel):
    """Body of POST /tokens."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    scope: Literal["namespace", "workspace"]
    namespace: str | None = Field(None, description="slug, for scope namespace")
    workspaceId: str | None = Field(None, description="id or slug, for scope workspace")  # noqa: N815 - the wire's name
    ttl: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=LONGEST_TTL)] = DEFAULT_TTL
    label: Label | None = None


@router.post("/tokens", status_code=201, summary="Issue a scoped token")
async def issue_token(body: TokenRequest, caller: CallerOf, services: ServicesOf) -> Envelope:
    """A short-lived JWT for one namespace or one workspace; needs an admin credential."""
    issued = await services.tokens.issue(
        caller,
        Scope(body.scope),
        namespace=body.namespace,
        workspace=body.workspaceId,
        ttl=body.ttl,
        label=body.label,
    )
    return success(
        201,
        token=issued.token,
        expiresAt=iso(issued.expires_at),
        scope=issued.scope,
        ttl=issued.ttl,
    )
