"""The shell of an image."""

from __future__ import annotations

import os
import stat

ACCOUNTS = "/etc/passwd"
ACCOUNTS_LIMIT = 64 * 1024  # bytes; root's entry is the first in every distribution
SHELLS = ("/bin/bash", "/bin/sh")


def default_shell(given: str = "") -> str:
    """The first that can be run: `given`, root's shell in /etc/passwd, bash, sh; else empty."""
    candidates = (given, login_shell(), *SHELLS)
    return next((path for path in candidates if path and _runs(path)), "")


def login_shell() -> str:
    """Root's shell as /etc/passwd has it; empty when it says nothing."""
    try:
        fd = os.open(ACCOUNTS, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        # The image may hold anything under this name, a pipe that never ends among it.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        raw = os.read(fd, ACCOUNTS_LIMIT)
    except OSError:
        return ""
    finally:
        os.close(fd)
    for line in raw.splitlines():
        fields = line.split(b":")
        if len(fields) == 7 and fields[0] == b"root":
            return os.fsdecode(fields[6])
    return ""


def _runs(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)  # noqa: PTH116
    except (OSError, ValueError):
        return False
