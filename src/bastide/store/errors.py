"""What the database refuses."""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError

_UNIQUE_VIOLATION: Final = "23505"
_DISK_FULL: Final = "53100"


class Duplicate(Exception):  # noqa: N818 - reads as what it is
    """A row with the same unique value exists. `constraint` says which, as the database put it."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


def raise_duplicate(error: IntegrityError) -> None:
    """Turn a violated unique constraint into `Duplicate`; raise anything else as it is."""
    message, state = str(error.orig), getattr(error.orig, "sqlstate", None)
    if "UNIQUE constraint failed" in message or state == _UNIQUE_VIOLATION:
        raise Duplicate(message) from error
    raise error


def is_full(error: DBAPIError) -> bool:
    """Whether the database had no room for what it was to write."""
    primary = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # above it is where it was met
    return primary == sqlite3.SQLITE_FULL or getattr(error.orig, "sqlstate", None) == _DISK_FULL
