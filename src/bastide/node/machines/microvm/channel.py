"""Unix sockets between the node and one emulator: the node makes them, the emulator inherits them.

Their names are in a directory of the node's own, so a node that comes back can connect again; the
emulator, which its guest may have taken over, cannot put anything else in their place.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PIECE = 16 * 1024
_PER_SECOND = 256 * 1024
"""Bytes that are read in a second: what is written beyond has to wait, in the guest."""
_AT_ONCE = 128 * 1024
_LAST = 5.0
"""Seconds in which all that a dead emulator had sent has surely been read."""


def listening(directory: Path, name: str) -> socket.socket:
    """A socket at `directory/name` for the emulator to inherit; only root may connect."""
    (directory / name).unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(made.fileno(), 0o600)  # the name gets it with the bind
        with _short(directory, name) as path:
            made.bind(path)
        made.listen(1)
    except BaseException:
        made.close()
        raise
    return made


def connected(directory: Path, name: str) -> socket.socket:
    """A connection to the socket at `directory/name`.

    Raises:
        OSError: nobody listens there.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(directory, name) as path:
            made.connect(path)  # it is accepted later; the kernel answers at once
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


@contextmanager
def _short(directory: Path, name: str) -> Iterator[str]:
    """A name that fits into an address, however long the directory's is."""
    holder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{holder}/{name}"
    finally:
        os.close(holder)


class Channel:
    """What comes over one connection, given to `take` piece by piece and no faster than bounded.

    `take` may raise: then nothing more is read, and `ended` holds what it raised.
    """

    def __init__(self, connection: socket.socket, take: Callable[[bytes], None]) -> None:
        self._socket = connection
        self._take = take
        self.ended: asyncio.Task[None] = asyncio.create_task(self._read())

    async def send(self, data: bytes) -> bool:
        """Send, and tell whether the other side was there to hear it."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError:
            return False
        return True

    async def drained(self) -> None:
        """Read what is still under way when the other side has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await asyncio.wait({self.ended})

    async def close(self) -> None:
        """Let go of the connection."""
        self.ended.cancel()
        await asyncio.gather(self.ended, return_exceptions=True)
        self._socket.close()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        credit, last = float(_AT_ONCE), loop.time()
        with suppress(OSError):  # the emulator is gone
            while chunk := await loop.sock_recv(self._socket, _PIECE):
                self._take(chunk)
                now = loop.time()
                credit = min(_AT_ONCE, credit + (now - last) * _PER_SECOND) - len(chunk)
                last = now
                if credit < 0:
                    await asyncio.sleep(-credit / _PER_SECOND)
