"""Errors a handler raises, and the envelope they become (spec runtime 0 and 3.6)."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """An answer that is not a success.

    `code` is for programs (`not_found`), `message` for the person who reads it, `details` says
    more about it (`{"field": ...}`), `headers` are added to the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    def envelope(self, request_id: str) -> dict[str, object]:
        """The JSON body. `success` must be false: clients throw on nothing else (spec 0.1)."""
        body: dict[str, object] = {
            "success": False,
            "error": self.code,
            "code": self.code,
            "message": self.message,
            "request_id": request_id,
        }
        if self.details:
            body["details"] = self.details
        return body


class ClientGoneError(ConnectionError):
    """The client left while a handler was reading from it or writing to it."""


def invalid(field: str, message: str) -> ApiError:
    """A 400 that names the wrong field and says what is allowed."""
    return ApiError(400, "validation_error", message, {"field": field})


def not_found(message: str) -> ApiError:
    """A 404 for something that is not there."""
    return ApiError(404, "not_found", message)
