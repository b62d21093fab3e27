"""Directories below a destination, opened so that nothing can lead out of it.

Every component of a path is opened relative to the directory before it and never through a
symlink, so it does not matter what a program in the workspace moves or links meanwhile.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from bastide_agent.transfer.tarball import TarError

MAX_DEPTH = 256  # directories below the destination; one descriptor each
NAME_MAX = 255
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
DIRECTORY_MODE = 0o755


@dataclass(slots=True)
class _Open:
    name: bytes
    fd: int
    mtime_ns: int | None = None  # to be set when nothing more is put into it


def split(name: bytes) -> list[bytes]:
    """The components of a member's name.

    Raises:
        TarError: it is absolute or has `..`, so that it could name a place outside.
    """
    if name.startswith(b"/"):
        raise TarError("its name is absolute; names must be relative to dest")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise TarError("its name holds '..', which could lead out of dest")
    if len(parts) > MAX_DEPTH:
        raise TarError(f"it is more than {MAX_DEPTH} directories deep")
    if any(len(part) > NAME_MAX for part in parts):
        raise TarError(f"a part of its name is longer than {NAME_MAX} bytes")
    return parts


class Beneath:
    """The destination and the chain of directories open below it."""

    def __init__(self, dest: str) -> None:
        self._top = _open_destination(dest)
        self._chain: list[_Open] = []
        # Below / nothing is outside: there, links such as /bin -> usr/bin are followed.
        at_root = os.path.samestat(os.fstat(self._top), os.stat("/"))  # noqa: PTH116
        self._flags = FLAGS if at_root else FLAGS | os.O_NOFOLLOW

    def parent(self, parts: Sequence[bytes]) -> int:
        """A descriptor of the directory in which the last part is or will be; made if missing.

        It stays open until another chain is asked for.

        Raises:
            TarError: something that is no directory is in the way.
            OSError: the kernel refused.
        """
        wanted = parts[:-1]
        same = 0
        while same < min(len(wanted), len(self._chain)) and self._chain[same].name == wanted[same]:
            same += 1
        self._shorten(same)
        for name in wanted[same:]:
            self._enter(name)
        return self._chain[-1].fd if self._chain else self._top

    def find(self, parts: Sequence[bytes]) -> int:
        """Like `parent`, but makes nothing and leaves the chain alone; the caller closes it.

        Raises:
            OSError: a directory is not there, or is none.
        """
        fd = os.dup(self._top)
        for name in parts[:-1]:
            above, fd = fd, -1
            try:
                fd = os.open(name, self._flags, dir_fd=above)
            finally:
                os.close(above)
        return fd

    def directory(self, parts: Sequence[bytes]) -> int | None:
        """Make a directory; its descriptor (kept by the chain), or None when it was there.

        Raises:
            TarError: something that is no directory is in the way.
            OSError: the kernel refused.
        """
        above = self.parent(parts)
        try:
            os.mkdir(parts[-1], DIRECTORY_MODE, dir_fd=above)
        except FileExistsError:
            self._enter(parts[-1])
            return None
        self._enter(parts[-1])
        return self._chain[-1].fd

    def date_when_left(self, mtime_ns: int) -> None:
        """Give the directory just made its time, once all that belongs into it is there."""
        self._chain[-1].mtime_ns = mtime_ns

    def _enter(self, name: bytes) -> None:
        above = self._chain[-1].fd if self._chain else self._top
        try:
            fd = os.open(name, self._flags, dir_fd=above)
        except FileNotFoundError:
            os.mkdir(name, DIRECTORY_MODE, dir_fd=above)
            fd = os.open(name, self._flags, dir_fd=above)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                what = os.fsdecode(name)
                raise TarError(f"{what!r} in its path is a link or a file in dest") from None
            raise
        self._chain.append(_Open(name, fd))

    def _shorten(self, length: int) -> None:
        while len(self._chain) > length:
            left = self._chain.pop()
            try:
                if left.mtime_ns is not None:
                    os.utime(left.fd, ns=(left.mtime_ns, left.mtime_ns))
            finally:
                os.close(left.fd)

    def close(self) -> None:
        """Leave every directory."""
        try:
            self._shorten(0)
        finally:
            os.close(self._top)


def _open_destination(dest: str) -> int:
    """Open the destination, made with its parents when missing. Its own links are followed.

    Raises:
        OSError: the kernel refused, or something that is no directory is in the way.
    """
    fd = os.open("/", FLAGS)
    for name in dest.split("/"):
        if name:
            above, fd = fd, -1
            try:
                fd = _open_or_make(above, name)
            finally:
                os.close(above)
    return fd


def _open_or_make(above: int, name: str) -> int:
    try:
        return os.open(name, FLAGS, dir_fd=above)
    except FileNotFoundError:
        os.mkdir(name, DIRECTORY_MODE, dir_fd=above)
        return os.open(name, FLAGS, dir_fd=above)
