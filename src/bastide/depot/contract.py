"""The Depot contract: files that are written once, as a stream, and read in parts."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

PIECE = 1024 * 1024
"""Bytes of one read."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}(\.[a-z0-9]{1,8}){0,2}", re.ASCII)


class DepotError(Exception):
    """The depot cannot be used now; the message says what is wrong with it."""


class DepotFull(DepotError):  # noqa: N818 - reads as a state
    """There is no room for more."""


class Missing(DepotError):  # noqa: N818 - reads as a state
    """There is no file of that name."""


class Draft(ABC):
    """A file that nobody can see yet."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Add bytes; waits while the depot is slow.

        Raises:
            DepotError, DepotFull: they cannot be kept; nothing will be published.
        """

    @abstractmethod
    async def publish(self) -> None:
        """Make the file complete and visible in one step, lasting through a power cut.

        Raises:
            DepotError, DepotFull: it could not be; nothing is visible.
        """


class Depot(ABC):
    """Files by opaque names (`checked`).

    Must be implemented: everything here. `tests/contract/depot.py` is the suite that every
    implementation inherits.
    """

    @abstractmethod
    def draft(self, name: str) -> AbstractAsyncContextManager[Draft]:
        """A new file. What was not published when the block ends is gone, also after an error.

        What an earlier process has left half-written under this name is dropped.
        """

    @abstractmethod
    def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes from `start` up to, not with, `end` (None: all), in pieces of about `PIECE`.

        Raises:
            Missing: there is none.
            DepotError: it cannot be read on.
        """

    @abstractmethod
    async def size(self, name: str) -> int | None:
        """Bytes of a file; None when there is none."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Delete a file for good, half-written ones too; an unknown name has nothing to do.

        Raises:
            DepotError: it may still be there.
        """


def checked(name: str) -> str:
    """The name, if it is one that leads nowhere else.

    Raises:
        ValueError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a file in a depot")
    return name
