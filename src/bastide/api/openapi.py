"""The description at /openapi.json: credentials and error bodies of every path."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from bastide.api.authentication import PUBLIC

_CREDENTIALS = {
    "ClientId": {"type": "apiKey", "in": "header", "name": "X-Client-ID"},
    "ClientSecret": {"type": "apiKey", "in": "header", "name": "X-Client-Secret"},
    "Token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
}
_REFUSAL = {
    "type": "object",
    "required": ["success", "error", "code", "message", "request_id"],
    "properties": {
        "success": {"const": False},
        "error": {"type": "string"},
        "code": {"type": "string"},
        "message": {"type": "string"},
        "details": {"type": "object"},
        "request_id": {"type": "string"},
    },
}
_ANSWER = {
    "description": "Any failure; docs/errors.md lists the codes",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
}


def describe(app: FastAPI) -> None:
    """Let `app` describe itself with our credentials and envelope in place of the default."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _description(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _description(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = document.setdefault("components", {})
    components["securitySchemes"] = _CREDENTIALS
    schemas = components.setdefault("schemas", {})
    schemas["Refusal"] = _REFUSAL
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["security"] = [{"ClientId": [], "ClientSecret": []}, {"Token": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _ANSWER
            if path in PUBLIC:
                operation["security"] = []
    return document
