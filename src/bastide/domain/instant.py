"""Points in time: always aware, always UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def iso(value: datetime) -> str:
    """ISO-8601 in UTC with milliseconds and `Z` (spec control-plane 1.7)."""
    text = value.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
