"""Values that cannot be sent, refused before a request is made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bastide.client._errors import InvalidValue


def check(value: Any, field: str = "") -> None:
    """Refuse what JSON and URLs have no words for, anywhere in `value`.

    Raises:
        InvalidValue: names the field.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidValue(field, f"{field} must be a finite number, not {value}.")
    if isinstance(value, str) and not _is_text(value):
        raise InvalidValue(field, f"{field} must be text in UTF-8.")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            check(name, field or "body")
            check(inner, f"{field}.{name}" if field else str(name))
    if isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            check(inner, f"{field}.{number}")


def _is_text(value: str) -> bool:
    """Whether it has an encoding: bytes of the shell that are no UTF-8 have none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
