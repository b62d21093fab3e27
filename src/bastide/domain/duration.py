"""Durations as clients write them: `5m`, `1h`, `7d`, or a number of seconds (spec 1.7)."""

from __future__ import annotations

import re

ALLOWED = "a number of seconds, or a number with a unit: 30s, 5m, 1h, 7d, 2w"
LONGEST = 10 * 365 * 86_400
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHAPE = re.compile(r"([0-9]{1,12})([smhdw]?)", re.ASCII)


def parse_duration(value: object) -> int:
    """Seconds of a duration; a whole number of them, 1 second to 10 years.

    Raises:
        ValueError: it is no duration; the message says what is allowed.
    """
    seconds = _seconds(value)
    if not 1 <= seconds <= LONGEST:
        raise ValueError(f"must be between 1 second and 10 years; allowed is {ALLOWED}")
    return seconds


def _seconds(value: object) -> int:
    if isinstance(value, bool):
        raise ValueError(f"must be {ALLOWED}")  # noqa: TRY004 - one error type for bad input
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (found := _SHAPE.fullmatch(value.strip().lower())):
        return int(found[1]) * _UNITS[found[2]]
    raise ValueError(f"must be {ALLOWED}")
