"""Documents that only the node's socket has, and how a body becomes a document."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from bastide.domain.machine import STOP_GRACE, SnapshotAfter
from bastide.node.errors import Invalid

MOST_BODY = 2 * 1024 * 1024
_D = TypeVar("_D", bound=BaseModel)


class StopRequest(BaseModel):
    """Body of `stop`: seconds until it is made to end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grace: float = Field(STOP_GRACE, ge=0, le=600)


class SnapshotRequest(BaseModel):
    """Body of `snapshot`: what the machine is afterwards; without it what it was before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: SnapshotAfter | None = None


async def document(request: Request, kind: type[_D]) -> _D:
    """The body of a request as a document, checked.

    Raises:
        Invalid: it is too large or not such a document; `details["field"]` names the field.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            raise Invalid(f"the body is larger than {MOST_BODY // 1024} KiB")
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{field or 'body'}: {first['msg']}", field=field) from None
