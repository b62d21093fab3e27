"""The tar stream inside a body: plain or gzip, told by its first bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from bastide_agent.transfer.relay import PIECE
from bastide_agent.transfer.tarball import TarError

GZIP = b"\x1f\x8b"
OTHERS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7-Zip",
}


class Source:
    """Bytes in order, at most about `PIECE` of them in memory. `ended` once there are no more."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._inflate: zlib._Decompress | None = None
        self._input = b""
        self._piece = memoryview(b"")
        self._begun = False
        self.ended = False
        self.compressed = False

    def _begin(self) -> None:
        self._begun = True
        start = b""
        while len(start) < 8 and (data := self._read()):
            start += data
        if not start:
            raise TarError("the body is empty: send a tar.gz")
        for magic, name in OTHERS.items():
            if start.startswith(magic):
                raise TarError(f"the body is {name}: send a tar, plain or with gzip")
        self._input = start
        if start.startswith(GZIP):
            self.compressed = True
            self._inflate = zlib.decompressobj(wbits=31)

    def _plain(self) -> bytes:
        data, self._input = self._input, b""
        return data or self._read()

    def _inflated(self) -> bytes:
        """The next decompressed bytes; empty at the end of the last gzip member.

        Raises:
            TarError: the gzip data is broken or ends too early.
        """
        while self._inflate is not None:
            try:
                data = self._inflate.decompress(self._input, PIECE)
            except zlib.error as error:
                raise TarError(f"the gzip data is broken: {error}") from None
            self._input = self._inflate.unconsumed_tail
            if self._inflate.eof:
                self._next_gzip_member(self._inflate.unused_data)
            if data:
                return data
            if self._inflate is not None and not self._input:
                self._input = self._read()
                if not self._input:
                    raise TarError("the gzip data ends too early: the upload is incomplete")
        return b""

    def _next_gzip_member(self, rest: bytes) -> None:
        """Go on with the gzip member that follows; anything else after one is ignored."""
        while len(rest) < 2 and (data := self._read()):
            rest += data
        if rest.startswith(GZIP):
            self._inflate = zlib.decompressobj(wbits=31)
            self._input = rest
            return
        self._inflate = None
        while self._read():
            pass

    def take(self, limit: int) -> memoryview:
        """Between one and `limit` bytes; none at the end.

        Raises:
            TarError: see `_inflated`.
        """
        if not self._piece and not self.ended:
            if not self._begun:
                self._begin()
            self._piece = memoryview(self._inflated() if self.compressed else self._plain())
            self.ended = not self._piece
        taken, self._piece = self._piece[:limit], self._piece[limit:]
        return taken

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Exactly `size` bytes.

        Raises:
            TarError: the stream ends before.
        """
        while size:
            piece = self.take(size)
            if not piece:
                raise TarError("the archive ends in the middle of an entry: it is incomplete")
            size -= len(piece)
            yield piece

    def exactly(self, size: int) -> bytes:
        """Exactly `size` bytes, which the caller has bounded."""
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        for _ in self.pieces(size):
            pass

    def finish(self) -> None:
        """Read to the end, so that the checksum of the gzip data is checked."""
        while self.take(PIECE):
            pass
