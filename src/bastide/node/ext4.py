"""What the superblock of an ext4 file system says, without mounting it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

_AT = 1024
_SIZE = 1024
_MAGIC = 0xEF53
_ERRORS = 2
_SPARE = 50
"""Blocks that mkfs and resize2fs want beside a group's own tables for it to be worth having."""


def fills(file: Path) -> bool:
    """Whether the file system takes all of its file that it can.

    It does not when the file was made larger and `resize2fs` did not come to its end. A rest too
    small for the tables of one more group is left unused by that program too. False also for what
    is no ext4 at all: a check will tell.

    Raises:
        OSError: the file cannot be read.
    """
    block, size = _superblock(file)
    if len(block) < _SIZE or _number(block, 0x38, 2) != _MAGIC:
        return False
    bytes_each = _block_bytes(block)
    blocks = _number(block, 0x04, 4) | _number(block, 0x150, 4) << 32
    group = _number(block, 0x20, 4)
    if not blocks or not group:
        return False
    rest = size // bytes_each - blocks
    if rest <= 0:
        return True
    inodes = _number(block, 0x28, 4) * _number(block, 0x58, 2)
    tables = -(-inodes // bytes_each) + 3
    described = -(-blocks // group) * max(32, _number(block, 0xFE, 2))
    tables += -(-described // bytes_each) + _number(block, 0xCE, 2)
    first = _number(block, 0x14, 4)
    return (blocks - first) % group == 0 and rest < tables + _SPARE


def damaged(file: Path) -> bool:
    """Whether the kernel met errors on it, so that it should be checked. Raises OSError."""
    block, _ = _superblock(file)
    return len(block) == _SIZE and bool(_number(block, 0x3A, 2) & _ERRORS)


def used(file: Path) -> int:
    """Bytes in use on one that is not mounted, as `df` would say; 0 for what is no ext4.

    Whoever wrote it last may have made that up, but not beyond its size. Raises OSError.
    """
    block, size = _superblock(file)
    if len(block) < _SIZE or _number(block, 0x38, 2) != _MAGIC:
        return 0
    blocks = _number(block, 0x04, 4) | _number(block, 0x150, 4) << 32
    free = _number(block, 0x0C, 4) | _number(block, 0x158, 4) << 32
    taken = blocks - free - _number(block, 0x248, 4)  # the last: tables and journal
    return max(0, min(taken * _block_bytes(block), size))


def _superblock(file: Path) -> tuple[bytes, int]:
    """It, or what there is of it, and the size of the file."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.pread(descriptor, _SIZE, _AT), os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _block_bytes(block: bytes) -> int:
    return int(1024 << min(_number(block, 0x18, 4), 6))


def _number(block: bytes, at: int, length: int) -> int:
    found: int = struct.unpack_from("<H" if length == 2 else "<I", block, at)[0]
    return found
