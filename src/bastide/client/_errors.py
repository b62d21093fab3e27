"""What can go wrong, by code.

BastideError
  ConnectionFailed            nothing answered
    ConnectionBroken          it answered, and the connection broke before the end
  WaitTimeout                 a workspace was not ready in time
  ProvisioningFailed          a workspace could not be made; `code` says why
  ArchiveFailed               an archive could not be made; `code` says why
  CommandFailed               a command ended with another code than 0 (`ExecResult.check`)
  ConfigurationError          no address or key was given, nor in the environment
  ApiError                    the API refused; `code`, `status`, `details`, `request_id`
    AuthenticationError       401  key or token missing, wrong or expired
    PaymentRequiredError      402  a quota is used up
    PermissionDeniedError     403  not yours, or switched off
    NotFoundError             404  no such thing
    ConflictError             409  not in this state
    ValidationError           422  a field is wrong; `details["field"]` names it
      InvalidValue            the same, found here: nothing was sent
    RateLimitedError          429  too many requests
    ServerError               5xx  the server failed
      UnavailableError        503  not now; the same call may succeed later
"""

# ruff: noqa: N818 - each name says what happened

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from bastide.client._models import Workspace

MOST_TEXT = 500


class BastideError(Exception):
    """Anything this client raises."""


class ConfigurationError(BastideError):
    """An address or a key is missing; the message says which and where to get it."""


class ConnectionFailed(BastideError):
    """Nothing answered at the address, or the connection broke before the answer was whole."""


class ConnectionBroken(ConnectionFailed):
    """The connection broke before the answer was whole; what was asked for may have been done."""


class WaitTimeout(BastideError):
    """A workspace was not ready within the time given."""


class ArchiveFailed(BastideError):
    """An archive could not be made; `code` is machine-readable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ProvisioningFailed(BastideError):
    """A workspace could not be made or started; `workspace` is what there is of it.

    After a failed creation it can be retried or deleted.
    """

    def __init__(self, code: str, message: str, *, workspace: Workspace | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.workspace = workspace


class CommandFailed(BastideError):
    """A command ended with another code than 0."""


class ApiError(BastideError):
    """The API refused. `code` is machine-readable, `message` for people."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        details: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.details = dict(details or {})
        self.request_id = request_id
        self.retry_after = retry_after


class AuthenticationError(ApiError):
    """401: key or token missing, wrong or expired."""


class PaymentRequiredError(ApiError):
    """402: a quota is used up."""


class PermissionDeniedError(ApiError):
    """403: not yours, out of scope, or switched off."""


class NotFoundError(ApiError):
    """404: no such thing."""


class ConflictError(ApiError):
    """409: not possible in this state."""


class ValidationError(ApiError):
    """A field is wrong; `details["field"]` names it."""


class InvalidValue(ValidationError):
    """A value that cannot be sent, such as a number that is none; nothing was sent."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message, status=422, code="validation_error", details={"field": field})


class RateLimitedError(ApiError):
    """429: too many requests; `retry_after` is in seconds when told."""


class ServerError(ApiError):
    """5xx: the server failed."""


class UnavailableError(ServerError):
    """503: not now; the same call may succeed later."""


_DEFAULT_CODES = {
    400: "bad_request",
    401: "authentication_error",
    402: "payment_required",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    422: "validation_error",
    429: "rate_limited",
}
_BY_CODE: dict[str, type[ApiError]] = {
    "authentication_error": AuthenticationError,
    "unauthorized": AuthenticationError,
    "invalid_credentials": AuthenticationError,
    "missing_credentials": AuthenticationError,
    "payment_required": PaymentRequiredError,
    "not_found": NotFoundError,
    "conflict": ConflictError,
    "validation_error": ValidationError,
    "rate_limited": RateLimitedError,
}
_BY_STATUS: dict[int, type[ApiError]] = {
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: ValidationError,
    429: RateLimitedError,
    503: UnavailableError,
}


def error_of(response: httpx.Response) -> ApiError:
    """The typed error for an answer that refuses; its body must have been read."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        text = response.text.strip()[:MOST_TEXT]
        body = {"message": text or f"the server answered {response.status_code}"}
    status = response.status_code
    code = str(body.get("code") or body.get("error") or _DEFAULT_CODES.get(status, "server_error"))
    message = str(body.get("message") or body.get("error") or f"the server answered {status}")
    details = body.get("details")
    return kind_of(status, code)(
        message,
        status=status,
        code=code,
        details=details if isinstance(details, dict) else None,
        request_id=body.get("request_id") or response.headers.get("X-Request-ID"),
        retry_after=retry_after(response),
    )


def kind_of(status: int, code: str) -> type[ApiError]:
    """The class of a refusal."""
    known = _BY_CODE.get(code) or _BY_STATUS.get(status)
    return known or (ServerError if status >= 500 else ApiError)


def retry_after(response: httpx.Response) -> float | None:
    """The `Retry-After` header in seconds, when it is a number."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
