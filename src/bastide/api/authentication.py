"""Nothing is answered without credentials, but for a few public paths (spec control-plane 2)."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bastide.api.context import Services
from bastide.api.envelope import failure
from bastide.domain.errors import BadRequest, BastideError, Unauthorized
from bastide.services.caller import Caller

PUBLIC: Final = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"})
STATIC: Final = "/docs/static"
_CLIENT_ID = "X-Client-ID"
_CLIENT_SECRET = "X-Client-Secret"  # noqa: S105 - the name of a header


class Authentication:
    """Lets a request in only with valid credentials, before its body or path is looked at.

    The `Caller` is then in the request's state. An unknown path needs credentials too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request; lifespan messages pass by."""
        if scope["type"] == "http" and not is_public(scope["path"]):
            try:
                scope["state"]["caller"] = await identify(
                    scope["app"].state.services, Headers(scope=scope)
                )
            except BastideError as error:
                await failure(error, scope["state"]["request_id"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_public(path: str) -> bool:
    """Whether anybody may read this path; none of them says anything about anybody's things."""
    return path in PUBLIC or path.startswith(f"{STATIC}/")


async def identify(services: Services, headers: Headers) -> Caller:
    """Who sends these headers.

    Raises:
        BadRequest: two kinds of credentials, so that it is unclear which should count.
        Unauthorized: none, or none that are valid.
    """
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    client_id = headers.get(_CLIENT_ID, "")
    secret = headers.get(_CLIENT_SECRET, "")
    if bearer and (client_id or secret):
        raise BadRequest(
            f"Send either {_CLIENT_ID} and {_CLIENT_SECRET} or a bearer token, not both."
        )
    if bearer:
        return await services.tokens.authenticate(bearer)
    if client_id and secret:
        return await services.keys.authenticate(client_id, secret)
    if client_id or secret:
        missing = _CLIENT_SECRET if client_id else _CLIENT_ID
        raise Unauthorized(f"The header {missing} is missing.")
    raise Unauthorized(
        f"Credentials are missing. Send {_CLIENT_ID} and {_CLIENT_SECRET}, "
        "or Authorization: Bearer with a token."
    )


async def caller_of(request: Request) -> Caller:
    """The authenticated caller of this request; asynchronous to stay out of threads."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]
