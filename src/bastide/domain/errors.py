"""The error catalogue: everything the API may answer but success (spec control-plane 1.3, 1.4).

Each class is one kind of failure: its machine code, its HTTP status and a hint of what to do
next. `docs/errors.md` is written from here (`python -m bastide.domain.errors`).
"""

# ruff: noqa: N818 - each name is the kind of answer, as the specification calls it

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class BastideError(Exception):
    """A failure that the caller is told about.

    `code`, `status` and `hint` belong to the class; `details` go into the body's `details` and
    `extra` beside them at its top level. `headers` are added to the response.
    """

    code: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500
    meaning: ClassVar[str] = "Something went wrong inside the server."
    hint: ClassVar[str] = "Try again; if it lasts, give the request id to the operator."

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or f"{self.meaning} {self.hint}"
        self.details: dict[str, Any] = dict(details or {})
        self.extra: dict[str, Any] = dict(extra or {})
        self.headers: dict[str, str] = dict(headers or {})
        super().__init__(self.message)


class ServerError(BastideError):
    """A defect of ours. Never raised on purpose for bad input."""


class BadRequest(BastideError):
    """The request cannot be read or makes no sense as a whole."""

    code = "bad_request"
    status = 400
    meaning = "The request cannot be understood."
    hint = "Send a JSON object with Content-Type application/json."


class ValidationFailed(BastideError):
    """One field is wrong; `details.field` names it and the message says what is allowed."""

    code = "validation_error"
    status = 422
    meaning = "A field has a value that is not allowed."
    hint = "Correct the field named in details.field; the message says what is allowed."

    def __init__(
        self, field: str, message: str, *, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, details={"field": field, **(details or {})})
        self.field = field


class CreateFailed(BastideError):
    """A creation that was waited for did not succeed; its record holds the error."""

    code = "CREATE_FAILED"
    status = 422
    meaning = "The workspace could not be created."
    hint = "Retry it with POST /workspace/:id/provisioning/retry or delete it."


class FeatureUnavailable(ValidationFailed):
    """A field that the API knows and this server does not offer; it is never silently dropped."""

    meaning = "A field belongs to a feature that this server does not offer."
    hint = "Leave out the field named in details.field."

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message, details={"reason": "not_supported"})


class NotSupported(BastideError):
    """A whole endpoint or operation that this server does not offer."""

    code = "not_supported"
    status = 501
    meaning = "This server does not offer that operation."
    hint = "The message says why; bastide doctor lists what this server can do."


class Unauthorized(BastideError):
    """No credentials, or none that are valid."""

    code = "unauthorized"
    status = 401
    meaning = "Credentials are missing or invalid."
    hint = "Send X-Client-ID and X-Client-Secret, or Authorization: Bearer with a valid token."

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(BastideError):
    """The credentials are valid and do not reach this far."""

    code = "forbidden"
    status = 403
    meaning = "These credentials may not do that."
    hint = "Use a key or token whose scope covers the resource."


class RuntimeDisabled(BastideError):
    """The runtime API of the workspace is off."""

    code = "disabled"
    status = 403
    meaning = "The runtime API of this workspace is disabled."
    hint = "Enable it with POST /workspace/:id/runtime-api-access/enable."


class LimitReached(BastideError):
    """A count or a size is at its limit; `current` and `max` are numbers in the body."""

    code = "SANDBOX_LIMIT_REACHED"
    status = 409
    meaning = "The account has as many workspaces as it may have."
    hint = "Delete a workspace or ask the operator for a higher limit."

    def __init__(self, message: str | None = None, *, current: float, maximum: float) -> None:
        super().__init__(message, extra={"current": current, "max": maximum})


class ArchiveLimitReached(LimitReached):
    """As many archives, or as many bytes of them, as may be."""

    code = "ARCHIVE_LIMIT_REACHED"
    meaning = "There are as many archives as there may be, or they take as much room as they may."
    hint = "Delete some with delete_file=true, or ask the operator for a higher limit."


class RangeNotSatisfiable(BastideError):
    """The bytes that were asked for are not in the file."""

    code = "range_not_satisfiable"
    status = 416
    meaning = "The file does not have the bytes that the Range header asks for."
    hint = "Content-Range tells how many it has."


class RunningPoolReached(LimitReached):
    """The resources of the running workspaces."""

    code = "RUNNING_POOL_REACHED"
    status = 402
    meaning = "The running workspaces use as many resources as they may."
    hint = "Stop another workspace first."


class NotFound(BastideError):
    """There is no such thing, or it belongs to another account: the answer is the same."""

    code = "not_found"
    status = 404
    meaning = "There is nothing of that name here."
    hint = "Check the id or slug; list what there is."


class MethodNotAllowed(BastideError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status = 405
    meaning = "The path does not answer this method."
    hint = "Use one of the methods in the Allow header."


class Conflict(BastideError):
    """The resource is in a state that does not allow this; `details.state` says which."""

    code = "conflict"
    status = 409
    meaning = "The resource is in a state that does not allow this."
    hint = "The message names the state and what to do."

    def __init__(
        self,
        message: str | None = None,
        *,
        state: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        known = {"state": state} if state is not None else {}
        super().__init__(message, details={**known, **(details or {})})


class MachineNotRunning(Conflict):
    """The workspace must run for this."""

    code = "vm_not_running"
    meaning = "The workspace is not running."
    hint = "Start it with POST /workspace/:id/start and try again."


class TooLarge(BastideError):
    """The body is larger than any request needs."""

    code = "payload_too_large"
    status = 413
    meaning = "The body of the request is too large."
    hint = "A request to this API may have at most 1 MiB."


class VmUnavailable(BastideError):
    """Whatever runs the machines cannot be reached now."""

    code = "VM_UNAVAILABLE"
    status = 503
    meaning = "The machine cannot be reached now."
    hint = "Try again in a few seconds."


class StorageUnavailable(BastideError):
    """Where archives are kept cannot be used now, or is full."""

    code = "storage_unavailable"
    status = 503
    meaning = "The storage of archives cannot be used now, or has no room."
    hint = "Delete archives, or tell the operator of this server; the message says what is wrong."


class NotReady(BastideError):
    """The server itself is starting, stopping, or without its database."""

    code = "not_ready"
    status = 503
    meaning = "The server is not ready."
    hint = "Try again in a few seconds."


def catalogue() -> Iterator[type[BastideError]]:
    """Every kind of failure, by status and code."""

    def below(kind: type[BastideError]) -> Iterator[type[BastideError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    yield from sorted(below(BastideError), key=lambda kind: (kind.status, kind.code, kind.__name__))


def catalogue_page() -> str:
    """The text of `docs/errors.md`."""
    lines = [
        "# Errors",
        "",
        "Every answer that is no success has this body.",
        "`error` and `code` are the same machine-readable word; the message says what happened",
        "and what to do. `details` is optional. The request id is also in the header",
        "`X-Request-ID`.",
        "",
        "```json",
        '{"success": false, "error": "validation_error", "code": "validation_error",',
        ' "message": "Port must be between 1 and 65535", "details": {"field": "port"},',
        ' "request_id": "req_0123456789ab"}',
        "```",
        "",
        "Limits add the numbers `current` and `max` at the top level.",
        "This page is written by `python -m bastide.domain.errors`.",
        "",
        "| status | code | meaning | what to do |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {kind.status} | `{kind.code}` | {kind.meaning} | {kind.hint} |" for kind in catalogue()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(catalogue_page())
