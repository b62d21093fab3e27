"""Compression of archives as they pass, with bounded memory either way."""

from __future__ import annotations

import hashlib

import zstandard

LEVEL = 3
MOST_EXPANDED = 1024 * 1024
"""Bytes about which `Expansion.take` gives at once; a hostile file makes it 17 MiB at most."""
_WINDOW = 8 * 1024 * 1024
_SLICE = 512
"""Bytes expanded in one step: a block of 128 KiB takes at least four."""


class BrokenError(ValueError):
    """The compressed data is damaged or ends too early."""


class Press:
    """Compresses a stream; `read` and `written` bytes, and the SHA-256 of what was written."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
        self._hash = hashlib.sha256()
        self.read = 0
        self.written = 0

    def add(self, data: bytes) -> bytes:
        """More to compress; what is ready of it. Blocks: call it in a thread."""
        self.read += len(data)
        return self._count(self._zstd.compress(data))

    def end(self) -> bytes:
        """What is left."""
        return self._count(self._zstd.flush())

    @property
    def sha256(self) -> str:
        """Of all that was written, in hex."""
        return self._hash.hexdigest()

    def _count(self, data: bytes) -> bytes:
        self.written += len(data)
        self._hash.update(data)
        return data


class Expansion:
    """Expands a stream in bounded parts, and keeps the SHA-256 of what went in."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self._hash = hashlib.sha256()
        self._waiting = memoryview(b"")

    def add(self, data: bytes) -> None:
        """More to expand; `take` first until it gives nothing."""
        self._hash.update(data)
        self._waiting = memoryview(data)

    def take(self) -> bytes:
        """The next expanded bytes; none when more must be added. Blocks: call it in a thread.

        Raises:
            BrokenError: it is damaged.
        """
        found = bytearray()
        while self._waiting and len(found) < MOST_EXPANDED:
            if self._zstd.eof:
                raise BrokenError("the archive has bytes after its end")
            part, self._waiting = self._waiting[:_SLICE], self._waiting[_SLICE:]
            try:
                found += self._zstd.decompress(part)
            except zstandard.ZstdError as error:
                raise BrokenError(f"the archive is damaged: {error}") from None
        return bytes(found)

    def end(self, sha256: str | None) -> None:
        """See that it is complete, and the same as was written.

        Raises:
            BrokenError: it is not.
        """
        if not self._zstd.eof:
            raise BrokenError("the archive ends too early")
        if sha256 is not None and self._hash.hexdigest() != sha256:
            raise BrokenError("the archive is not what was written: its SHA-256 differs")
