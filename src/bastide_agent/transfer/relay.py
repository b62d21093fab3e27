"""Between a worker thread and the event loop: bounded hand-over of a body's bytes.

A transfer lasts as long as its slowest part, so it has a thread of its own; the pool behind
`in_thread` stays free for short work.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from bastide_agent.http.errors import ApiError
from bastide_agent.http.streams import NO_BUFFERING

if TYPE_CHECKING:
    from bastide_agent.http.body import Body
    from bastide_agent.http.message import Request
    from bastide_agent.http.streams import Stream

T = TypeVar("T")
PIECE = 256 * 1024  # bytes handed over at once
MAX_TRANSFERS = 8


class Transfers:
    """The transfers under way, each in its own thread."""

    def __init__(self) -> None:
        self._running = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread of its own and wait for what it returns.

        Raises:
            ApiError: 429 when as many run as may. Whatever `work` raises.
        """
        if self._running >= MAX_TRANSFERS:
            message = f"{MAX_TRANSFERS} transfers are under way, the most at once: try again later"
            details = {"limit": MAX_TRANSFERS}
            raise ApiError(429, "rate_limited", message, details, {"Retry-After": "5"})
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._running -= 1  # only now: a cancelled handler leaves its thread a while longer
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def body() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as caught:  # noqa: BLE001  (the handler raises it)
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: the agent ends
                loop.call_soon_threadsafe(settle, result, error)

        self._running += 1
        threading.Thread(target=body, name="transfer", daemon=True).start()
        return await done


class Outlet:
    """The thread's end of an answer's body. One piece is on its way while the next is made."""

    def __init__(self, loop: asyncio.AbstractEventLoop, request: Request) -> None:
        self._loop = loop
        self._request = request
        self._stream: Stream | None = None
        self._sending: Future[None] | None = None

    def open(self, content_type: str) -> None:
        """Send the head of a 200."""
        start = self._request.start(200, content_type, NO_BUFFERING)
        self._stream = asyncio.run_coroutine_threadsafe(start, self._loop).result()

    def write(self, data: bytes) -> None:
        """Send; waits while the client is slow.

        Raises:
            ClientGoneError: the client is gone.
        """
        self.flush()
        if self._stream is not None:
            sending = self._stream.write(data)
            self._sending = asyncio.run_coroutine_threadsafe(sending, self._loop)

    def flush(self) -> None:
        """Wait until everything written has been sent."""
        if self._sending is not None:
            self._sending.result()


class Inlet:
    """The thread's end of a request's body. The next piece is fetched while one is in use."""

    def __init__(self, loop: asyncio.AbstractEventLoop, body: Body) -> None:
        self._loop = loop
        self._body = body
        self._coming: Future[bytes] | None = None

    def read(self) -> bytes:
        """The next bytes, about `PIECE` at most; empty at the end.

        Raises:
            ClientGoneError: the client left before the end.
            ApiError: 408 when it sends nothing for too long.
        """
        coming = self._coming or self._fetch()
        data = coming.result()
        self._coming = self._fetch() if data else None
        return data

    def close(self) -> None:
        """Nothing more is wanted."""
        if self._coming is not None:
            self._coming.cancel()

    def _fetch(self) -> Future[bytes]:
        return asyncio.run_coroutine_threadsafe(self._pull(), self._loop)

    async def _pull(self) -> bytes:
        data = await self._body.next()
        if not self._body.waiting:
            return data
        parts, size = [data], len(data)
        while self._body.waiting and size < PIECE:
            parts.append(await self._body.next())
            size += len(parts[-1])
        return b"".join(parts)
