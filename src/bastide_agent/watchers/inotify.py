"""The kernel's inotify, which Python has no module for."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

MODIFY = 0x2
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
UNMOUNT = 0x2000
OVERFLOW = 0x4000
IGNORED = 0x8000
ISDIR = 0x40000000
_ONLYDIR = 0x01000000
_EXCL_UNLINK = 0x04000000
_MASK = (
    MODIFY | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
    | _ONLYDIR | _EXCL_UNLINK
)  # fmt: skip
_HEAD = struct.Struct("iIII")
_READ_SIZE = 16 * 1024  # bytes: some hundred events, so that others have their turn


class Event(NamedTuple):
    """One event: which watch, what (a mask), and the name inside that directory."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One inotify instance. Every method raises `OSError` as the kernel says."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._add = libc.inotify_add_watch
        self._add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._remove = libc.inotify_rm_watch
        self._remove.argtypes = (ctypes.c_int, ctypes.c_int)
        self.fd: int = _checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, directory: int) -> int:
        """Watch the directory that is open under this descriptor; the number of the watch.

        By descriptor and not by name: a name could lead elsewhere by now.
        """
        return _checked(self._add(self.fd, b"/proc/self/fd/%d" % directory, _MASK))

    def remove(self, watch: int) -> None:
        """End a watch."""
        _checked(self._remove(self.fd, watch))

    def read(self) -> Iterator[Event]:
        """Some of the events that wait; none when none do."""
        try:
            raw = os.read(self.fd, _READ_SIZE)
        except BlockingIOError:
            return
        at = 0
        while at < len(raw):
            watch, mask, _, length = _HEAD.unpack_from(raw, at)
            at += _HEAD.size
            yield Event(watch, mask, raw[at : at + length].rstrip(b"\0"))
            at += length

    def close(self) -> None:
        """End all watches."""
        os.close(self.fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
