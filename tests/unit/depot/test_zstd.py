"""Compression as it passes: same bytes, bounded memory, damage found."""

from __future__ import annotations

import hashlib
import os
import random

import pytest
import zstandard

from bastide.depot.zstd import MOST_EXPANDED, BrokenError, Expansion, Press

MIB = 1024 * 1024
SLACK = 16 * MIB


def pressed(*pieces: bytes) -> tuple[bytes, Press]:
    """The compressed stream of some pieces."""
    press = Press()
    out = b"".join([*(press.add(piece) for piece in pieces), press.end()])
    return out, press


def expanded(data: bytes, piece: int = 100_000, sha256: str | None = None) -> bytes:
    """What comes out again."""
    expansion = Expansion()
    out = bytearray()
    for start in range(0, len(data), piece):
        expansion.add(data[start : start + piece])
        while part := expansion.take():
            assert len(part) <= MOST_EXPANDED + SLACK
            out += part
    expansion.end(sha256)
    return bytes(out)


@pytest.mark.parametrize("piece", [1, 7, 513, 1 << 20])
def test_what_goes_in_comes_out(piece: int) -> None:
    """Random and repeated bytes, however the stream is cut; figures and hash are right."""
    maker = random.Random(piece)
    pieces = [maker.randbytes(1000), b"", b"again" * 5000, os.urandom(70_000 if piece > 1 else 10)]
    data, press = pressed(*pieces)
    assert (press.read, press.written) == (sum(map(len, pieces)), len(data))
    assert press.sha256 == hashlib.sha256(data).hexdigest()
    assert expanded(data, piece, press.sha256) == b"".join(pieces)


def test_nothing_is_something() -> None:
    """An empty stream is a whole one."""
    data, press = pressed()
    assert expanded(data, sha256=press.sha256) == b""


def test_a_bomb_comes_out_in_bounded_parts() -> None:
    """256 MiB of zeros in a few KiB never takes more than a few MiB at once."""
    data, _ = pressed(*[bytes(16 * MIB)] * 16)
    assert len(data) < MIB
    expansion = Expansion()
    expansion.add(data)
    count = largest = 0
    while part := expansion.take():
        count, largest = count + len(part), max(largest, len(part))
    assert count == 256 * MIB
    assert largest <= MOST_EXPANDED + SLACK
    expansion.end(None)


def test_damage_is_found() -> None:
    """A changed byte, a missing end, bytes after the end, another file: none passes."""
    data, press = pressed(os.urandom(300_000))
    for position in (0, 5, 1000, len(data) - 1):
        broken = bytearray(data)
        broken[position] ^= 1
        with pytest.raises(BrokenError):
            expanded(bytes(broken), sha256=press.sha256)
    for wrong in (data[:-1], data[:1000], b"", data + b"x", data * 2):
        with pytest.raises(BrokenError):
            expanded(wrong, sha256=press.sha256)
    with pytest.raises(BrokenError, match="SHA-256"):
        expanded(pressed(b"other")[0], sha256=press.sha256)


def test_a_window_that_wants_all_memory_is_refused() -> None:
    """A file that asks for a window of a GiB is broken, not obeyed."""
    wide = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    data = compressor.compress(os.urandom(1000)) + compressor.flush()
    with pytest.raises(BrokenError):
        expanded(data)
