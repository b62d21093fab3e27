"""Parameters of a request: typed getters over a query string or a JSON body.

Each getter raises `ApiError` 400 `validation_error` that names the field and what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from bastide_agent.http.errors import invalid

PATH_MAX = 4096
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_HEX = {f"{high}{low}".encode(): bytes((int(f"{high}{low}", 16),))
        for high in "0123456789abcdefABCDEF" for low in "0123456789abcdefABCDEF"}  # fmt: skip


def percent_decode(raw: bytes) -> bytes:
    """Undo percent encoding; a `%` without two hex digits stays as it is."""
    if b"%" not in raw:
        return raw
    first, *parts = raw.split(b"%")
    out = [first]
    for part in parts:
        byte = _HEX.get(part[:2])
        out.append(b"%" + part if byte is None else byte + part[2:])
    return b"".join(out)


def parse_query(raw: bytes) -> dict[str, str]:
    """A query string as a mapping (the last of equal names wins); `+` is a space.

    Bytes that are not UTF-8 become surrogates, as in Linux path names.
    """
    found: dict[str, str] = {}
    for pair in raw.split(b"&"):
        if pair:
            name, _, value = pair.replace(b"+", b" ").partition(b"=")
            key = percent_decode(name).decode("utf-8", "surrogateescape")
            found[key] = percent_decode(value).decode("utf-8", "surrogateescape")
    return found


class Fields:
    """Values by name, from a query (`str` values) or a JSON object. JSON null counts as absent."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def raw(self, name: str) -> object:
        """The value as it came, or None."""
        return self._values.get(name)

    def values(self) -> Mapping[str, object]:
        """All of them, as they came."""
        return self._values

    def any_of(self, *names: str) -> str:
        """The first of several spellings of a field that is present, else the first."""
        return next((name for name in names if name in self), names[0])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean: JSON true/false, or `true`, `false`, `1`, `0`."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _FLAGS:
            return _FLAGS[value.lower()]
        raise invalid(name, f"{name} must be true or false")

    def integer(self, name: str, default: int, minimum: int, maximum: int) -> int:
        """A whole number within bounds (both included)."""
        value = self._values.get(name)
        if value is None:
            return default
        number: int | None = None
        if isinstance(value, bool):
            pass
        elif isinstance(value, int):
            number = value
        elif isinstance(value, float) and value.is_integer():
            number = int(value)
        elif isinstance(value, str) and len(value) <= 20 and value.isascii():
            digits = value[1:] if value[:1] == "-" else value
            number = int(value) if digits.isdigit() else None
        if number is None or not minimum <= number <= maximum:
            raise invalid(name, f"{name} must be a whole number from {minimum} to {maximum}")
        return number

    def text(self, name: str, default: str | None = None, *, max_length: int = 4096) -> str:
        """A string that is valid Unicode; required when there is no default."""
        value = self._values.get(name)
        if value is None:
            if default is None:
                raise invalid(name, f"{name} is required")
            return default
        if not isinstance(value, str):
            raise invalid(name, f"{name} must be a string")
        if len(value) > max_length:
            raise invalid(name, f"{name} must have at most {max_length} characters")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(name, f"{name} must be valid Unicode (UTF-8)") from None
        return value

    def path(self, name: str, default: str | None = None) -> str:
        """An absolute path in the workspace, as given: not resolved, not normalised.

        Names that are not UTF-8 come percent-encoded in a query, or as surrogates in JSON.
        """
        value = self._values.get(name)
        if value is None or value == "":
            if default is None:
                raise invalid(name, f"{name} is required: an absolute path")
            return default
        if not isinstance(value, str):
            raise invalid(name, f"{name} must be a string")
        if "\0" in value:
            raise invalid(name, f"{name} must not hold a NUL byte")
        try:
            size = len(os.fsencode(value))
        except UnicodeEncodeError:
            raise invalid(name, f"{name} must be valid Unicode (UTF-8)") from None
        if not value.startswith("/"):
            raise invalid(name, f"{name} must be an absolute path, beginning with /")
        if size >= PATH_MAX:
            raise invalid(name, f"{name} must be shorter than {PATH_MAX} bytes")
        return value

    def mode(self, name: str, default: int) -> int:
        """Permission bits as an octal string such as `0644`."""
        value = self._values.get(name)
        if value is None:
            return default
        digits = value.removeprefix("0o") if isinstance(value, str) else ""
        if not 1 <= len(digits) <= 5 or digits.strip("01234567") or int(digits, 8) > 0o7777:
            raise invalid(name, f"{name} must be an octal string such as 0644, at most 7777")
        return int(digits, 8)

    def strings(
        self, name: str, *, max_items: int = 1024, max_length: int = 131072, required: bool = False
    ) -> list[str]:
        """A list of strings without NUL bytes; empty when absent and not required."""
        value = self._values.get(name)
        if value is None and not required:
            return []
        if not isinstance(value, list) or (required and not value):
            raise invalid(
                name, f"{name} must be a list of strings" + " with at least one" * required
            )
        if len(value) > max_items:
            raise invalid(name, f"{name} must have at most {max_items} items")
        for item in value:
            if not isinstance(item, str) or "\0" in item or len(item) > max_length:
                limit = f"strings without NUL bytes, at most {max_length} characters each"
                raise invalid(name, f"{name} must hold {limit}")
            try:
                os.fsencode(item)
            except UnicodeEncodeError:
                raise invalid(name, f"{name} must be valid Unicode (UTF-8)") from None
        return list(value)

    def commas(self, name: str, *, max_length: int = 4096) -> list[str]:
        """A comma list such as `js,ts`; blanks around items and empty items are dropped."""
        return [part.strip() for part in self.text(name, "", max_length=max_length).split(",")
                if part.strip()]  # fmt: skip
