"""What the SSH server says, by the socket its C library takes for the system's log.

Not by its standard error: in a session on a terminal that is the terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from bastide_agent.ring import Ring
from bastide_agent.ssh.place import LOG

LIMIT = 64 * 1024  # bytes kept
MESSAGE = 4096  # bytes of one message
ROUND = 64  # messages read before others have their turn
LISTENING = b": Server listening on "


class Journal:
    """Keeps the last of it; `listening` is set when the server says that it listens."""

    def __init__(self) -> None:
        self.listening = asyncio.Event()
        self._kept = Ring(LIMIT)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listen.

        Raises:
            OSError: the socket cannot be made.
        """
        if self._socket is not None:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(LOG)  # noqa: PTH108
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        self._socket.bind(LOG)
        os.chmod(LOG, 0o600)  # noqa: PTH101
        asyncio.get_running_loop().add_reader(self._socket, self._read, self._socket)

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(LOG)  # noqa: PTH108

    def note(self, line: str) -> None:
        """Add a line of our own."""
        self._kept.write(f"{line}\n".encode("utf-8", "replace"))

    def tail(self, limit: int) -> str:
        """The last `limit` bytes."""
        return self._kept.tail(limit).decode("utf-8", "replace")

    def last_line(self) -> str:
        """The last line."""
        lines = self.tail(MESSAGE).splitlines()
        return lines[-1] if lines else ""

    def _read(self, source: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(ROUND):
                # `<86>Nov 21 19:52:27 sshd[7]: text`, perhaps with an end of line or NUL
                message = source.recv(MESSAGE).rstrip(b"\r\n\0")
                _, _, message = message.partition(b">")
                self._kept.write(message + b"\n")
                if LISTENING in message:
                    self.listening.set()
