"""The body of every answer (spec control-plane 1.2)."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse

from bastide.domain.errors import BastideError


class Envelope(JSONResponse):
    """JSON in UTF-8. Text that is no valid Unicode is replaced, not refused."""

    def render(self, content: Any) -> bytes:
        """The body's bytes."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def success(status: int = 200, /, **payload: Any) -> Envelope:
    """`{"success": true, ...payload}`."""
    return Envelope({"success": True, **payload}, status_code=status)


def failure(error: BastideError, request_id: str) -> Envelope:
    """The error as clients read it; `error` and `code` are the same word."""
    body: dict[str, Any] = {
        "success": False,
        "error": error.code,
        "code": error.code,
        "message": error.message,
        **error.extra,
        "request_id": request_id,
    }
    if error.details:
        body["details"] = error.details
    return Envelope(body, status_code=error.status, headers=error.headers)
