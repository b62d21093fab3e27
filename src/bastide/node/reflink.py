"""Copies of large files: blocks are shared where the file system can, else only data is copied."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

_FICLONE = 0x40049409
_CHUNK = 64 * 1024 * 1024
_NO_REFLINK = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV})


def copy(source: Path, target: Path) -> bool:
    """Copy a file to one that does not exist yet (0600); whether its blocks are shared. Blocks.

    Holes stay holes. Whatever fails, no target is left.

    Raises:
        OSError: among others `ENOSPC`, `EEXIST`.
    """
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            shared = _clone(reading, writing)
            if not shared:
                _copy_data(reading, writing)
            os.fsync(writing)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return shared


def supported(directory: Path) -> bool:
    """Whether files in `directory` can share blocks: tried with a small one.

    Raises:
        OSError: the directory cannot be written.
    """
    flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
    source = os.open(directory, flags, 0o600)
    try:
        os.write(source, b"x" * 4096)
        target = os.open(directory, flags, 0o600)
        try:
            return _clone(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_REFLINK:
            return False
        raise
    return True


def _copy_data(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:  # also from one file system to another
            copied = os.sendfile(target, source, at, min(end - at, _CHUNK))
            if copied == 0:
                return
            at += copied
