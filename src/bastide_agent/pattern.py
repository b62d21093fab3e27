"""Expressions made of what clients send."""

from __future__ import annotations

import re


def compiled(expression: str, flags: int = 0) -> re.Pattern[str]:
    """Compile, and leave nothing in the cache of `re`: it would keep 512 of any size for ever."""
    try:
        return re.compile(expression, flags)
    finally:
        re.purge()
