"""Extended attributes of files: those that are the workspace's own, and access lists.

`security.` and `trusted.` ones are the kernel's, and no process of a workspace may set them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from bastide_agent.transfer.pax import ATTRIBUTE

KEPT = (b"user.", b"system.posix_acl_")
MOST = 512 * 1024  # bytes of one entry's


def read(fd: int) -> dict[bytes, bytes]:
    """The kept attributes of an open file, as PAX records; those that fail are left out."""
    found: dict[bytes, bytes] = {}
    size = 0
    try:
        names = os.listxattr(fd)
    except OSError:
        return found
    for name in map(os.fsencode, names):
        if not name.startswith(KEPT) or b"=" in name:
            continue
        with contextlib.suppress(OSError):
            value = os.getxattr(fd, name)
            size += len(name) + len(value)
            if size <= MOST:
                found[ATTRIBUTE + name] = value
    return found


def write(fd: int, attributes: Mapping[bytes, bytes]) -> None:
    """Set the kept ones; a file system that has none, or no room for them, goes without."""
    for name, value in attributes.items():
        if name.startswith(KEPT):
            with contextlib.suppress(OSError):
                os.setxattr(fd, name, value)
