"""Time as the wire writes it."""

from __future__ import annotations

import time


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds, of seconds since the epoch."""
    whole, rest = divmod(int(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{rest:03d}Z"
