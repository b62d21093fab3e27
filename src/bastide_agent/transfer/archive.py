"""The members of an uploaded archive, one after another. Every header is hostile and bounded."""

from __future__ import annotations

from collections.abc import Iterator

from bastide_agent.transfer import pax
from bastide_agent.transfer.source import Source
from bastide_agent.transfer.tarball import (
    BLOCK,
    FILE,
    PAX,
    SPARSE,
    Extent,
    Member,
    TarError,
    check_extents,
    padding,
    parse_extents,
    parse_header,
)

META_LIMIT = 1024 * 1024  # bytes of one extension header
META_MOST = 16  # extension headers before one member
LONG_NAME, LONG_TARGET, VOLUME = b"L", b"K", b"V"
PAX_KINDS = (PAX, b"X")  # X: as Solaris wrote it
PAX_GLOBAL = b"g"
ZERO = bytes(BLOCK)


class Archive:
    """Iterates over members; after each, `data` gives its bytes (what is left is passed over)."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = 0  # bytes of data of the present member
        self._padding = 0
        self._begun = False

    def __iter__(self) -> Iterator[Member]:
        while True:
            self._source.skip(self._left + self._padding)
            self._left = self._padding = 0
            member = self._member()
            if member is None:
                return
            yield member

    def _member(self) -> Member | None:
        """The next member with all that its extension headers say; None at the end."""
        name = target = None
        records: dict[bytes, bytes] = {}
        for _ in range(META_MOST):
            block = self._block()
            if block is None:
                return None
            member = self._header(block)
            if member.kind in (LONG_NAME, LONG_TARGET):
                text = self._meta(member.size).partition(b"\0")[0]
                name, target = (text, target) if member.kind == LONG_NAME else (name, text)
            elif member.kind in PAX_KINDS:
                records |= pax.records(self._meta(member.size))
            elif member.kind in (PAX_GLOBAL, VOLUME):
                self._source.skip(member.size + padding(member.size))
            else:
                member.name = member.name if name is None else name
                member.target = member.target if target is None else target
                self._complete(member, records)
                return member
        raise TarError(f"more than {META_MOST} extension headers follow each other")

    def _header(self, block: bytes) -> Member:
        try:
            return parse_header(block)
        except TarError as error:
            if self._begun:
                raise
            raise TarError(f"the body is no tar archive: {error}") from None
        finally:
            self._begun = True

    def _block(self) -> bytes | None:
        """The next header block; None at the end of the archive."""
        block = bytes(self._source.take(BLOCK))
        if not block:
            if not self._source.compressed:
                raise TarError("the archive has no end mark: the upload is incomplete")
            return None
        block += self._source.exactly(BLOCK - len(block))
        if block == ZERO:
            self._source.finish()
            return None
        return block

    def _meta(self, size: int) -> bytes:
        if size > META_LIMIT:
            raise TarError(f"an extension header is larger than {META_LIMIT} bytes")
        raw = self._source.exactly(size)
        self._source.skip(padding(size))
        return raw

    def _complete(self, member: Member, records: dict[bytes, bytes]) -> None:
        if member.kind == SPARSE:
            self._old_sparse(member)
        pax.apply(member, records)
        if member.kind not in (FILE, SPARSE):
            member.size = 0
            return
        self._left, self._padding = member.size, padding(member.size)
        if records.get(pax.SPARSE + b"major") == b"1" and member.kind == FILE:
            member.extents = self._sparse_map()
        if member.extents is not None:
            check_extents(member.extents, self._left, member.real_size)

    def _old_sparse(self, member: Member) -> None:
        """The blocks in which a GNU sparse map goes on after its header."""
        # The flag after the header's own places says so, as does the one of each block.
        more = member.more_extents
        while more:
            block = self._source.exactly(BLOCK)
            assert member.extents is not None  # noqa: S101  (set by parse_header)
            member.extents += parse_extents(block[:504])
            if len(member.extents) > pax.MAX_EXTENTS:
                raise TarError(f"a sparse file has more than {pax.MAX_EXTENTS} parts")
            more = block[504] != 0

    def _sparse_map(self) -> list[Extent]:
        """The map of sparse format 1.0: decimal lines before the data, up to a whole block."""
        raw, lines, wanted = bytearray(), 0, 1
        while lines < wanted:
            if self._left < BLOCK or len(raw) > pax.MAX_EXTENTS * 40:
                raise TarError("the map of a sparse file is wrong")
            block = self._source.exactly(BLOCK)
            self._left -= BLOCK
            raw += block
            lines += block.count(b"\n")
            if wanted == 1 and lines:
                count = pax.number(bytes(raw.partition(b"\n")[0]))
                wanted = 1 + 2 * min(count, pax.MAX_EXTENTS + 1)
        return pax.extents(bytes(raw).split(b"\n")[1:wanted])

    def data(self) -> Iterator[memoryview]:
        """The bytes of the present member."""
        while self._left:
            piece = self._source.take(self._left)
            if not piece:
                raise TarError("the archive ends in the middle of a file: it is incomplete")
            self._left -= len(piece)
            yield piece
