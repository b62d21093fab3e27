"""Opening things in a workspace without ever hanging on what they are.

Programs in the workspace may swap files for pipes, devices and links at any moment. So a thing is
first pinned (O_PATH: opens nothing), looked at, and only then opened through its pin.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from bastide_agent.files.errors import file_error, is_directory, not_regular

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK


def tidy(path: str) -> str:
    """The path without doubled slashes, `.` parts and a trailing slash; `..` stays."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


@contextmanager
def opened_file(path: str) -> Iterator[tuple[int, os.stat_result]]:
    """A regular file open for reading, links followed, and its stat.

    Raises:
        ApiError: 400 for anything that is no regular file, 404, 403.
    """
    fd = -1
    try:
        pin = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            info = os.fstat(pin)
            if stat.S_ISDIR(info.st_mode):
                raise is_directory(path)
            if not stat.S_ISREG(info.st_mode):
                raise not_regular(path)
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open(f"/proc/self/fd/{pin}", flags)
        finally:
            os.close(pin)
    except OSError as error:
        raise file_error(error, path) from None
    try:
        yield fd, info
    finally:
        os.close(fd)


@contextmanager
def opened_directory(path: str) -> Iterator[int]:
    """A directory open for listing and as a place for names, links followed.

    Raises:
        ApiError: 400 when it is none, 404, 403.
    """
    try:
        fd = os.open(path, DIRECTORY)
    except OSError as error:
        raise file_error(error, path) from None
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened_parent(path: str) -> Iterator[tuple[int, str]]:
    """The directory that holds the last part of a path, and that part.

    A trailing slash or `.` means the thing itself, not a link to it; `..` is resolved by the
    kernel. The name is empty for the root.
    """
    resolved = path
    if path.endswith("/") or path.rsplit("/", 1)[1] in (".", ".."):
        with opened_directory(path) as fd:
            try:
                resolved = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
            except OSError as error:
                raise file_error(error, path) from None
    parent, _, name = resolved.rpartition("/")
    with opened_directory(parent or "/") as fd:
        yield fd, name


def read_all(fd: int, limit: int) -> bytes | None:
    """Everything a file holds; None when that is more than `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    block = 16 * 1024  # a buffer of the whole limit would cost more than most files
    while data := os.read(fd, min(block, limit + 1 - size)):
        size += len(data)
        if size > limit:
            return None
        parts.append(data)
        block = min(block * 4, 1 << 20)
    return parts[0] if len(parts) == 1 else b"".join(parts)
