"""The boot log of a guest: what its kernel and its first process print, bounded.

It is the guest's own words: nothing follows from them but what is told of this guest.
"""

from __future__ import annotations

import re

MOST = 64 * 1024
_MOST_REASON = 200
_PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]*)")


class Console:
    """The last `MOST` bytes."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data[-MOST:]

    def feed(self, data: bytes) -> None:
        """Take in what was printed; ends of lines become plain."""
        self.data = (self.data + data.replace(b"\r", b""))[-MOST:]

    @property
    def panic(self) -> str | None:
        """Why the guest's kernel gave up, in its own words; None as far as is known."""
        found = _PANIC.search(self.data)
        if found is None:
            return None
        text = found[1][:_MOST_REASON].decode(errors="replace")
        return "".join(c for c in text if c.isprintable()).strip()
