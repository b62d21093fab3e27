"""What one check has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`says` is what was found, `todo` what to do about it; "" when there is nothing to do."""

    name: str
    level: Level
    says: str
    todo: str = ""


def ok(name: str, says: str) -> Finding:
    """It is as it should be."""
    return Finding(name, "ok", says)


def warn(name: str, says: str, todo: str = "") -> Finding:
    """The cloud runs, but this should be known."""
    return Finding(name, "warn", says, todo)


def fail(name: str, says: str, todo: str) -> Finding:
    """The cloud cannot run like this."""
    return Finding(name, "fail", says, todo)
