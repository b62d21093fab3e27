"""The clock and the random pool of a kernel that belongs to this machine alone.

A machine that stood still, or that came back from a snapshot, has an old clock; two that came back
from one snapshot have the same random pool. The node knows better. In a machine that shares its
kernel with others both are refused by that kernel, and nothing happens.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time

MOST_SEED = 512
"""Bytes; an ioctl takes no more than 1024 from here."""

_ADD_ENTROPY = 0x40085203  # RNDADDENTROPY: bits, length, bytes
_RESEED = 0x5207  # RNDRESEEDCRNG: what was drawn before says nothing of what comes


def set_clock(nanoseconds: int) -> None:
    """Set the time, in nanoseconds since the epoch."""
    with contextlib.suppress(OSError):
        time.clock_settime_ns(time.CLOCK_REALTIME, nanoseconds)


def reseed(seed: bytes) -> None:
    """Let all that is drawn from now on depend on `seed`, a secret nobody else has."""
    packed = struct.pack("ii", len(seed) * 8, len(seed)) + seed
    with contextlib.suppress(OSError):
        pool = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(pool, _ADD_ENTROPY, packed)
            fcntl.ioctl(pool, _RESEED)
        finally:
            os.close(pool)
