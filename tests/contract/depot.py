"""The suite every depot inherits."""

from __future__ import annotations

import asyncio
import os

import pytest

from bastide.depot.contract import Depot, Missing

NAME = "arc_0123456789ab.tar.zst"
MIB = 1024 * 1024


async def content(depot: Depot, start: int = 0, end: int | None = None) -> bytes:
    """What is read of the file."""
    return b"".join([piece async for piece in depot.read(NAME, start, end)])


async def store(depot: Depot, *pieces: bytes) -> None:
    """Write and publish the file."""
    async with depot.draft(NAME) as draft:
        for piece in pieces:
            await draft.write(piece)
        await draft.publish()


async def fail(depot: Depot, *pieces: bytes) -> None:
    """Write, and end by an error before it is published."""
    async with depot.draft(NAME) as draft:
        for piece in pieces:
            await draft.write(piece)
        raise RuntimeError


class DepotSuite:
    """What holds of every depot; a subclass gives the fixture `depot`."""

    async def test_what_was_published_is_read_whole_and_in_parts(self, depot: Depot) -> None:
        """All bytes come back in order, and any range of them."""
        pieces = [os.urandom(MIB + 7) for _ in range(18)]
        await store(depot, *pieces)
        whole = b"".join(pieces)
        assert await depot.size(NAME) == len(whole)
        assert await content(depot) == whole
        assert await content(depot, 5, 12) == whole[5:12]
        assert await content(depot, 3 * MIB) == whole[3 * MIB :]
        assert await content(depot, len(whole) - 3, len(whole)) == whole[-3:]
        assert await content(depot, 9, 9) == b""

    async def test_a_small_and_an_empty_file(self, depot: Depot) -> None:
        """Less than one part is a file too."""
        await store(depot, b"x")
        assert await content(depot) == b"x"
        await store(depot)
        assert await depot.size(NAME) == 0

    async def test_nothing_is_seen_before_it_is_published(self, depot: Depot) -> None:
        """A draft is no file, and its end without publishing leaves none."""
        async with depot.draft(NAME) as draft:
            await draft.write(os.urandom(MIB))
            assert await depot.size(NAME) is None
        assert await depot.size(NAME) is None

    async def test_an_error_leaves_nothing(self, depot: Depot) -> None:
        """Whatever ends the block early, there is no file."""
        with pytest.raises(RuntimeError):
            await fail(depot, *(os.urandom(MIB) for _ in range(20)))
        assert await depot.size(NAME) is None

    async def test_cancelling_leaves_nothing(self, depot: Depot) -> None:
        """A writer that is cancelled in the middle leaves no file, and a new one can begin."""
        begun = asyncio.Event()

        async def write() -> None:
            async with depot.draft(NAME) as draft:
                while True:
                    await draft.write(os.urandom(MIB))
                    begun.set()

        writing = asyncio.create_task(write())
        await begun.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await depot.size(NAME) is None
        await store(depot, b"new")
        assert await content(depot) == b"new"

    async def test_a_failed_writer_leaves_the_former_file(self, depot: Depot) -> None:
        """Until the new one is published the old one is read."""
        await store(depot, b"old")
        with pytest.raises(RuntimeError):
            await fail(depot, b"new")
        assert await content(depot) == b"old"

    async def test_removed_is_gone(self, depot: Depot) -> None:
        """A removed file cannot be read; removing again has nothing to do."""
        await store(depot, b"secret")
        await depot.remove(NAME)
        assert await depot.size(NAME) is None
        with pytest.raises(Missing):
            await content(depot)
        await depot.remove(NAME)

    @pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".x", "a b", "a" * 200, "x\n"])
    async def test_names_lead_nowhere_else(self, depot: Depot, name: str) -> None:
        """A name that is no plain one is refused before anything is touched."""
        with pytest.raises(ValueError, match="no name"):
            await depot.remove(name)
        with pytest.raises(ValueError, match="no name"):
            await depot.size(name)
