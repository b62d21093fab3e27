"""The connection to the one client: frames out in fair turns, input and resizes in."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Protocol, TypeGuard

from bastide_agent.http.connection import WRITE_HIGH
from bastide_agent.http.errors import ClientGoneError
from bastide_agent.terminals.routes import MAX_SIDE

if TYPE_CHECKING:
    from bastide_agent.http.websocket import WebSocket
    from bastide_agent.live import Live

TAKEN_OVER = 4001  # close code for the connection that a newer one replaces
STALL_TIMEOUT = 10.0  # seconds a client may take nothing while frames wait
PING_INTERVAL = 30.0  # seconds
MAX_SILENT_PINGS = 2
TEXT_LIMIT = 64 * 1024  # characters of a text message worth parsing


class Source(Protocol):
    """Something with news for the client. It keeps them until they are asked for, in bounds."""

    def attach(self) -> None:
        """A client came: it is owed the present state."""

    def detach(self) -> None:
        """The client is gone."""

    def next_frame(self) -> str | bytes | None:
        """The next message; None when there is none now."""


class Link:
    """Pulls frames from the sources while the client takes them.

    What waits stays with its source, which bounds it, so a slow client costs one write buffer;
    each source has its turn, so a noisy terminal does not silence the others. A client that takes
    nothing for `stall` seconds is cut off, and the terminals run on.
    """

    def __init__(
        self, socket: WebSocket, live: Live,
        stall: float = STALL_TIMEOUT, ping: float = PING_INTERVAL,
    ) -> None:  # fmt: skip
        self._socket = socket
        self._live = live
        self._stall = stall
        self._ping = ping
        self._turn = 0
        self._draining: asyncio.Task[None] | None = None
        self._left = False

    # -- to the client

    def pump(self) -> None:
        """Send what there is, as far as the client takes it."""
        if self._draining is not None or self._left:
            return
        with contextlib.suppress(ClientGoneError):
            while self._round():
                if self._socket.pending > WRITE_HIGH:
                    task = asyncio.get_running_loop().create_task(self._drain())
                    self._draining = task
                    return

    def _round(self) -> bool:
        """One frame of each source; True when there may be more."""
        sources = self._live.sources()
        count = len(sources)
        more = False
        for step in range(count):
            frame = sources[(self._turn + step) % count].next_frame()
            if frame is not None:
                more = True
                self._socket.post(frame)
                if self._socket.pending > WRITE_HIGH:
                    self._turn = (self._turn + step + 1) % count
                    return True
        return more

    async def _drain(self) -> None:
        """Wait for a slow client; cut it off when it takes nothing at all."""
        try:
            while True:
                before = self._socket.pending
                try:
                    await asyncio.wait_for(self._socket.drain(), self._stall)
                    break
                except TimeoutError:
                    if self._socket.pending >= before:
                        self._socket.abort()
                        return
        except ClientGoneError:
            return
        self._draining = None
        self.pump()

    async def _keep_alive(self) -> None:
        """Ping; cut off a client that says nothing for `MAX_SILENT_PINGS` intervals."""
        silent = 0
        while silent < MAX_SILENT_PINGS:
            heard = self._socket.received
            with contextlib.suppress(ClientGoneError):
                self._socket.ping()
            await asyncio.sleep(self._ping)
            # A slow client answers after what waits for it; that is for the stall timer.
            silent = 0 if self._socket.received > heard or self._draining else silent + 1
        self._socket.abort()

    # -- from the client

    async def run(self) -> None:
        """Serve to the end of the connection."""
        keeper = asyncio.get_running_loop().create_task(self._keep_alive())
        try:
            self.pump()
            while (message := await self._socket.receive()) is not None:
                if isinstance(message, str):
                    self._command(message)
                elif len(message) > 1:
                    session = self._live.terminals.find(message[0])
                    if session is not None:
                        await session.write(message[1:])
        finally:
            self._left = True
            keeper.cancel()
            if self._draining is not None:
                self._draining.cancel()

    def _command(self, text: str) -> None:
        """`{"channel":"terminal","type":"resize",...}`; anything else is ignored."""
        if len(text) > TEXT_LIMIT:
            return
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict) or message.get("type") != "resize":
            return
        number, cols, rows = (message.get(name) for name in ("id", "cols", "rows"))
        if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) <= 3:
            number = int(number)
        if type(number) is int and is_side(cols) and is_side(rows):
            session = self._live.terminals.find(number)
            if session is not None:
                session.resize(cols, rows)

    # -- the end

    def take_over(self) -> None:
        """A newer connection takes this one's place."""
        self._left = True
        with contextlib.suppress(ClientGoneError):
            self._socket.close(TAKEN_OVER, "taken over")

    def abort(self) -> None:
        """Cut the connection at once."""
        self._socket.abort()


def is_side(value: object) -> TypeGuard[int]:
    """Whether this is a number of columns or rows."""
    return type(value) is int and 1 <= value <= MAX_SIDE
