"""The tar format: headers made and read (POSIX ustar, GNU and PAX extensions).

Made here are GNU headers: they hold names of any bytes and length, and busybox reads them too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

BLOCK = 512
END = bytes(2 * BLOCK)
FILE, LINK, SYMLINK, DIRECTORY, SPARSE = b"0", b"1", b"2", b"5", b"S"
PAX = b"x"
GNU_MAGIC = b"ustar  \0"
INLINE_EXTENTS = 4  # of a sparse file, in its header
BLOCK_EXTENTS = 21  # in each block that follows
MOST = 2**63 - 1
LATEST = 2**40  # seconds since the epoch, either way; the kernel narrows it further

Extent = tuple[int, int]  # offset and length (bytes) of data in a sparse file


class TarError(ValueError):
    """The archive is broken; the message says where."""


@dataclass(slots=True)
class Member:
    """One entry. `size` counts the bytes that follow in the archive; `real_size` the file's."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes = b""
    real_size: int = 0
    extents: list[Extent] | None = None
    more_extents: bool = False  # blocks with more of them follow the header
    attributes: dict[bytes, bytes] = field(default_factory=dict)


def padding(size: int) -> int:
    """Bytes from the end of `size` bytes of data to the next block."""
    return -size % BLOCK


def _number(value: int, width: int) -> bytes:
    """Octal; binary (GNU) when it does not fit."""
    digits = b"%0*o" % (width - 1, value) if value >= 0 else b""
    if 0 < len(digits) < width:
        return digits + b"\0"
    raw = bytearray((value % (1 << (8 * width - 8))).to_bytes(width - 1, "big"))
    return bytes((0x80 if value >= 0 else 0xFF,)) + bytes(raw)


def _block(
    name: bytes, kind: bytes, info: tuple[int, int, int, int, int], target: bytes, tail: bytes
) -> bytes:
    mode, uid, gid, size, mtime = info
    block = bytearray(
        name[:100].ljust(100, b"\0")
        + _number(mode, 8) + _number(uid, 8) + _number(gid, 8)
        + _number(size, 12) + _number(mtime, 12)
        + b"        " + kind + target[:100].ljust(100, b"\0")
        + GNU_MAGIC + bytes(80) + bytes(41) + tail
    )  # fmt: skip
    block += bytes(BLOCK - len(block))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _long(kind: bytes, text: bytes) -> bytes:
    """The GNU member that carries a name too long for the next header."""
    data = text + b"\0"
    head = _block(b"././@LongLink", kind, (0o644, 0, 0, len(data), 0), b"", b"")
    return head + data + bytes(padding(len(data)))


def extension(records: Mapping[bytes, bytes]) -> bytes:
    """The PAX member that says more of the next one."""
    data = bytearray()
    for key, value in records.items():
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + len(str(len(rest)))
        while len(rest) + len(str(length)) != length:  # its own digits count
            length = len(rest) + len(str(length))
        data += str(length).encode() + rest
    head = _block(b"././@PaxHeader", PAX, (0o644, 0, 0, len(data), 0), b"", b"")
    return head + bytes(data) + bytes(padding(len(data)))


def _table(extents: list[Extent]) -> bytes:
    return b"".join(_number(offset, 12) + _number(length, 12) for offset, length in extents)


def header(
    name: bytes,
    kind: bytes,
    info: os.stat_result,
    *,
    size: int = 0,
    target: bytes = b"",
    extents: list[Extent] | None = None,
) -> bytes:
    """The header blocks of an entry. `size` is of the data that follows them."""
    before = b""
    if len(name) > 100:
        before += _long(b"L", name)
    if len(target) > 100:
        before += _long(b"K", target)
    numbers = (info.st_mode & 0o7777, info.st_uid, info.st_gid, size, int(info[stat.ST_MTIME]))
    if extents is None:
        return before + _block(name, kind, numbers, target, b"")
    rest = extents[INLINE_EXTENTS:]
    tail = _table(extents[:INLINE_EXTENTS]).ljust(INLINE_EXTENTS * 24, b"\0")
    tail += (b"\1" if rest else b"\0") + _number(info.st_size, 12)
    blocks = [before, _block(name, SPARSE, numbers, target, tail)]
    while rest:
        part, rest = rest[:BLOCK_EXTENTS], rest[BLOCK_EXTENTS:]
        table = _table(part).ljust(BLOCK_EXTENTS * 24, b"\0") + (b"\1" if rest else b"\0")
        blocks.append(table.ljust(BLOCK, b"\0"))
    return b"".join(blocks)


def parse_number(raw: bytes) -> int:
    """A numeric field: octal, or binary (GNU).

    Raises:
        TarError: it is neither.
    """
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=True)
        return value if raw[0] == 0xFF else value + (1 << (8 * len(raw) - 1))
    digits = raw.partition(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise TarError("a number in a header is wrong")
    return int(digits, 8) if digits else 0


def parse_header(block: bytes) -> Member:
    """One header block.

    Raises:
        TarError: it is none (checksum, numbers).
    """
    given = parse_number(block[148:156])
    plain = block[:148] + b"        " + block[156:]
    # Some old programs summed signed bytes.
    if given != sum(plain) and given != sum(byte - 256 * (byte > 127) for byte in plain):
        raise TarError("the checksum of a header is wrong")
    name = block[:100].partition(b"\0")[0]
    kind = block[156:157]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    if kind in (b"\0", b"7"):
        kind = FILE
    if kind == FILE and name.endswith(b"/"):  # as before POSIX
        kind = DIRECTORY
    size, mtime = parse_number(block[124:136]), parse_number(block[136:148])
    if not 0 <= size <= MOST:
        raise TarError("the size in a header is wrong")
    member = Member(
        name=name,
        kind=kind,
        mode=parse_number(block[100:108]) & 0o7777,
        uid=parse_number(block[108:116]),
        gid=parse_number(block[116:124]),
        size=size,
        mtime_ns=max(-LATEST, min(LATEST, mtime)) * 10**9,
        target=block[157:257].partition(b"\0")[0],
        real_size=size,
    )
    if kind == SPARSE:
        member.extents = parse_extents(block[386 : 386 + INLINE_EXTENTS * 24])
        member.more_extents = block[482] != 0
        member.real_size = parse_number(block[483:495])
    return member


def parse_extents(raw: bytes) -> list[Extent]:
    """Offsets and lengths from a table in a header; unused places are left out."""
    found: list[Extent] = []
    for start in range(0, len(raw), 24):
        if raw[start] == 0:
            break
        offset = parse_number(raw[start : start + 12])
        found.append((offset, parse_number(raw[start + 12 : start + 24])))
    return found


def check_extents(extents: list[Extent], stored: int, real_size: int) -> None:
    """See that the map of a sparse file is sound.

    Raises:
        TarError: extents overlap, leave the file, or are not what is stored.
    """
    last = total = 0
    for offset, length in extents:
        if offset < last or length < 0 or offset + length > real_size:
            raise TarError("the map of a sparse file is wrong")
        last, total = offset + length, total + length
    if total != stored or real_size > MOST:
        raise TarError("the map of a sparse file does not fit its data")
