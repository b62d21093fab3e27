"""What the framework refuses, in the words of the error catalogue."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException

from bastide.domain.errors import (
    BadRequest,
    BastideError,
    MethodNotAllowed,
    NotFound,
    ValidationFailed,
)

_PLACES = frozenset({"body", "query", "path", "header", "cookie"})
_NO_OBJECT = frozenset({"model_attributes_type", "model_type", "dict_type"})
_SHOULD = re.compile(r"^(Input|Value|String|List|Tuple|Set|Dictionary) should")
_MOST_NAMED = 20
_LONGEST_NAME = 200


def refused_request(errors: Sequence[Mapping[str, Any]]) -> BastideError:
    """A request whose body, query or path did not pass its model.

    The first problem is the message; when there are several, `details.errors` names them all.
    """
    for error in errors:
        if error["type"] == "json_invalid":
            reason = error.get("ctx", {}).get("error", "cannot be read")
            position = error["loc"][-1]
            return BadRequest(f"The body is not valid JSON: {reason} (character {position}).")
    problems = [_problem(error) for error in errors[:_MOST_NAMED]]
    field, message, unavailable = problems[0]
    details: dict[str, Any] = {"reason": "not_supported"} if unavailable else {}
    if len(problems) > 1:
        details["errors"] = [{"field": name, "message": text} for name, text, _ in problems]
    return ValidationFailed(field, message, details=details)


def refused_by_framework(error: HTTPException) -> BastideError:
    """An unknown path, a wrong method, an unreadable body."""
    if error.status_code == 404:
        return NotFound("There is no such path in this API. The paths are listed at /docs.")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return MethodNotAllowed(
            f"This path does not answer this method. It answers: {allowed}.",
            headers={"Allow": allowed},
        )
    return BadRequest("The body of the request cannot be read. Send a JSON object in UTF-8.")


def _problem(error: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Field, sentence, and whether the feature of the field is what is missing."""
    path = [str(part) for part in error["loc"]]
    place = path.pop(0) if path and path[0] in _PLACES else "body"
    cause = error.get("ctx", {}).get("error")
    later = getattr(cause, "field", None)
    if isinstance(later, str) and path[-1:] != [later]:
        path.append(later)
    field = ".".join(path)[:_LONGEST_NAME] or place
    return field, _sentence(field, place, error, cause), isinstance(later, str)


def _sentence(field: str, place: str, error: Mapping[str, Any], cause: object) -> str:
    """What is allowed, beginning with the field's name where it says only "must"."""
    if error["type"] == "missing":
        what = "A JSON object is required as the body." if field == "body" else ""
        return what or f"{field} is required."
    if error["type"] in _NO_OBJECT:
        if field == place:
            return "The body must be a JSON object sent with Content-Type application/json."
        return f"{field} must be a JSON object."
    own = isinstance(cause, ValueError)
    text = (str(cause) if own else _words(error)).rstrip(".")
    if text.startswith(("must", "is ", "has ")):
        return f"{field} {text}."
    name = field.rpartition(".")[2]
    if own:  # a sentence of ours, or one that begins with the field's name
        return f"{text}." if text.startswith(name) else f"{text[:1].upper()}{text[1:]}."
    return f"{field}: {text}."


def _words(error: Mapping[str, Any]) -> str:
    """The framework's sentence, made one about the field."""
    text = _SHOULD.sub("must", str(error["msg"])).replace(" after validation", "")
    if isinstance(error.get("input"), str):  # whose length it counts in items
        text = re.sub(r"\bitem(s?)\b", r"character\1", text)
    return text
