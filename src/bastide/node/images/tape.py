"""The bytes of a layer on their way: unpressed, summed up, and bounded whatever headers say."""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from bastide.node.errors import ImageRefused, NoSpace

_CHUNK = 256 * 1024
_MOST_HEADER = 1024 * 1024
"""Bytes of an extended header: names and attributes of one entry."""
_LOOK_FOR_ROOM = 64 * 1024 * 1024
"""Bytes written between two looks at how full the disk is."""


class Source(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


@dataclass
class Budget:
    """What one image may still take: bytes and entries; `reserve` bytes of the disk stay free.

    `skipped` counts what was left out.
    """

    bytes: int
    entries: int
    reserve: int
    skipped: int = 0
    written: int = 0
    _looked: int = field(default=0, repr=False)

    def entry(self) -> None:
        """Count an entry.

        Raises:
            ImageRefused: there are too many.
        """
        self.entries -= 1
        if self.entries < 0:
            raise ImageRefused("the image has more files than images.max_entries allows")

    def take(self, size: int) -> None:
        """Count bytes before they are written or passed over.

        Raises:
            ImageRefused: there are too many.
        """
        self.bytes -= size
        if self.bytes < 0:
            raise ImageRefused("the image unpacks to more than images.max_unpacked_mb allows")

    def wrote(self, size: int) -> None:
        """Count bytes that were written, and look from time to time how full the disk is.

        Raises:
            NoSpace: less than the reserve is left.
        """
        self.written += size
        if self.written - self._looked >= _LOOK_FOR_ROOM:
            self.look()

    def look(self) -> None:
        """See that the reserve is still free where the tree is."""
        self._looked = self.written
        free = os.statvfs("/")
        if free.f_bavail * free.f_frsize < self.reserve:
            raise NoSpace("the disk of this server is too full for the image")


class Inflated:
    """The bytes of a gzip file with any number of members."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(wbits=31)
        self._begun = False
        self._out, self._at = b"", 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes.

        Raises:
            ImageRefused: it is broken or cut off.
        """
        if self._at >= len(self._out):
            try:
                self._out, self._at = self._more(), 0
            except zlib.error as error:
                raise ImageRefused(f"a layer is no gzip file: {error}") from None
        data = self._out[self._at : self._at + size]
        self._at += len(data)
        return data

    def _more(self) -> bytes:
        """The next bytes, not more than a chunk; none at the end."""
        while True:
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:
                data = self._inflate.unused_data
                self._inflate = zlib.decompressobj(wbits=31)
                self._begun = False
            if not data:
                data = self._file.read(_CHUNK)
            if not self._begun:
                data = data.lstrip(b"\0")  # padding after a member
            if not data:
                if self._begun:
                    raise ImageRefused("a layer is cut off")
                return b""
            self._begun = True
            if out := self._inflate.decompress(data, _CHUNK):
                return out


class Tape:
    """A layer as the tar reader wants it: read forward only, summed up, bounded."""

    def __init__(self, source: Source, budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self._sum = hashlib.sha256()
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Exactly `size` bytes, fewer at the end.

        Raises:
            ImageRefused: more than any header has, or the layer is too large.
        """
        if not 0 <= size <= _MOST_HEADER:
            raise ImageRefused("a layer has a header that is too large")
        parts = []
        while size > 0 and (part := self._source.read(size)):
            parts.append(part)
            size -= len(part)
        data = b"".join(parts)
        self._sum.update(data)
        self._at += len(data)
        self._budget.take(len(data))
        return data

    def tell(self) -> int:
        """Bytes read so far."""
        return self._at

    def seek(self, place: int, whence: int = 0, /) -> int:
        """Pass over bytes up to `place`."""
        if whence != 0 or place < self._at:
            raise ImageRefused("a layer is no tar archive that can be read in order")
        while self._at < place:
            if not self.read(min(_CHUNK, place - self._at)):
                raise ImageRefused("a layer is cut off")
        return self._at

    def finish(self) -> str:
        """Read to the end; the digest of all of it."""
        while self.read(_CHUNK):
            pass
        return f"sha256:{self._sum.hexdigest()}"
