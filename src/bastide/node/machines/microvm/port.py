"""The node's end of the boot port (`guest` has what is said on it)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from bastide.node.errors import BootFailed
from bastide.node.machines.boot import shown
from bastide.node.machines.microvm.channel import Channel
from bastide.node.machines.microvm.guest import STOP, Conversation


class BootPort:
    """One conversation over `connection`. `printed` is told what comes, for the log.

    `ready`: the guest has been ready before, and only its end is still to be heard.
    """

    def __init__(
        self,
        connection: socket.socket,
        printed: Callable[[bytes], None],
        *,
        ready: bool = False,
    ) -> None:
        self.said = Conversation()
        self.said.ready = ready
        self._printed = printed
        self._news = asyncio.Event()
        self._channel = Channel(connection, self._take)

    def _take(self, data: bytes) -> None:
        before = len(self.said.output)
        try:
            self.said.feed(data)
        finally:
            self._printed(self.said.output[before:])
            self._news.set()

    async def until(self, said: Callable[[Conversation], bool]) -> None:
        """Wait until the guest has said something.

        Raises:
            BootFailed: it ended, or printed more than the bound, without saying it.
        """
        while not said(self.said):
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            try:
                await asyncio.wait({news, self._channel.ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            if self._channel.ended.done() and not said(self.said):
                self.said.end()
                raise self._failure()

    def _failure(self) -> BootFailed:
        error = self._channel.ended.exception()
        words = shown(self.said.output)
        if isinstance(error, BootFailed):
            return BootFailed(error.message, output=words)
        quoted = f": {words}" if words.strip() else " and printed nothing"
        return BootFailed(f"the machine ended before it was ready{quoted}", output=words)

    async def send(self, document: bytes) -> None:
        """Tell the guest something; one that is gone is somebody else's news."""
        await self._channel.send(document)

    async def ask_to_stop(self) -> bool:
        """Ask process 1 to end; whether anybody is there to hear it."""
        return await self._channel.send(STOP)

    async def last_words(self) -> None:
        """Read what is still under way from an emulator that has ended."""
        await self._channel.drained()
        self.said.end()

    async def close(self) -> None:
        """Let go of the port; the guest goes on."""
        await self._channel.close()
