"""One HTTP/1.1 connection: bytes to h11 events to a handler, and the answer back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from socket import SO_SNDBUF, SOL_SOCKET
from typing import TYPE_CHECKING

import h11

from bastide_agent.http.body import Body, gone
from bastide_agent.http.channel import Channel
from bastide_agent.http.errors import ApiError, ClientGoneError
from bastide_agent.http.message import Headers, Request, Response
from bastide_agent.http.streams import Stream

if TYPE_CHECKING:
    from bastide_agent.http.server import Server

HEAD_LIMIT = 32 * 1024  # bytes of request line and headers
HEAD_TIMEOUT = 10.0  # seconds from the first byte of a head to its last
IDLE_TIMEOUT = 120.0  # seconds between requests; longer than a proxy keeps its side
BODY_TIMEOUT = 60.0  # seconds a handler waits for the next bytes of a body
DRAIN_TIMEOUT = 300.0  # seconds a client may stop taking what we send
LINGER_TIMEOUT = 5.0  # seconds we go on reading after an early answer, so that it arrives
DISCARD_LIMIT = 256 * 1024  # bytes of an unread body we swallow to keep the connection
WRITE_HIGH = 128 * 1024
JOIN_LIMIT = 64 * 1024  # bytes of a body that is sent together with its head


class Connection(asyncio.Protocol):
    """The states: waiting for a head; a handler runs; taken over (`channel`); lingering."""

    __slots__ = (
        "_body", "_can_write", "_channel", "_discarded", "_drainer", "_h11", "_head_only",
        "_lingering", "_lost", "_reading_head", "_server", "_task", "_timer", "_transport",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._body: Body | None = None
        self._channel: Channel | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._drainer: asyncio.Future[None] | None = None
        self._can_write = True
        self._head_only = False
        self._lingering = False
        self._lost = False
        self._reading_head = True
        self._discarded = 0

    @property
    def waiting(self) -> bool:
        """Whether it has no request that is being answered."""
        return self._task is None and self._channel is None

    # -- what asyncio tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (narrows the type)
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        if not self._server.admit(self):
            self._refuse(ApiError(503, "too_many_connections", "too many open connections"))
            return
        self._set_timer(HEAD_TIMEOUT, self.abort)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        if self._channel is not None:
            self._channel.feed(data)
        elif not self._lingering:
            self._h11.receive_data(data)
            if not self._reading_head and self._h11.their_state is h11.IDLE:
                self._reading_head = True
                self._set_timer(HEAD_TIMEOUT, self.abort)
            self._pump()

    def eof_received(self) -> bool:
        """The client sends no more: as with Go's server, whatever still runs for it is dropped."""
        if self._channel is not None:
            self._channel.feed_eof()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        del exc
        self._lost = True
        self._clear_timer()
        self._server.forget(self)
        if self._channel is not None:
            self._channel.feed_eof()
        if self._body is not None and not self._body.complete:
            self._body.finish(gone())
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client is slower than we are."""
        self._can_write = False

    def resume_writing(self) -> None:
        """The client took most of it."""
        self._can_write = True
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)

    # -- requests

    def _pump(self) -> None:
        """Hand over every event h11 can make of what has arrived."""
        while not self._lost and not self._lingering and self._channel is None:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                self._reject(error)
                return
            if event is h11.NEED_DATA:
                return
            if event is h11.PAUSED:
                self.pause()
                return
            if isinstance(event, h11.Data):
                self._take_data(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._body_ended()
            elif isinstance(event, h11.Request):
                self._begin(event)
            else:  # ConnectionClosed
                return

    def _begin(self, event: h11.Request) -> None:
        self._clear_timer()
        self._reading_head = False
        headers: Headers = list(event.headers)
        length = None
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
        self._body = Body(self, length)
        self._head_only = event.method == b"HEAD"
        self._discarded = 0
        request = Request(self, event.method, event.target, headers, self._body)
        self._task = asyncio.get_running_loop().create_task(self._run(request))

    def _take_data(self, data: bytes) -> None:
        if self._body is None:
            return
        if self._task is None:  # answered already: swallow a little, or give up the connection
            self._discarded += len(data)
            if self._discarded > DISCARD_LIMIT:
                self._linger()
            return
        self._clear_timer()
        if self._body.feed(data):
            self.pause()

    def _body_ended(self) -> None:
        if self._body is not None:
            self._clear_timer()
            self._body.finish()
        if self._task is None:
            self._next_cycle()

    def want_body(self) -> None:
        """A handler waits for the body: ask for it, and do not wait for ever."""
        if self._h11.they_are_waiting_for_100_continue and not self._lost:
            self.write(
                self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
            )
        if not self._lingering:
            self._set_timer(BODY_TIMEOUT, self._body_timeout)
        self.resume()

    def _body_timeout(self) -> None:
        if self._body is not None and not self._body.complete:
            message = f"no data for {BODY_TIMEOUT:.0f} seconds"
            self._body.finish(ApiError(408, "request_timeout", message))

    async def _run(self, request: Request) -> None:
        completed = False
        try:
            response = await self._server.dispatch(request)
            if self._channel is None and self._h11.our_state is h11.SEND_RESPONSE:
                self._respond(response or Response(204))
            elif self._channel is None and response is None:
                self.end_stream()
            completed = True
        except ClientGoneError:
            pass
        finally:
            self._task = None
            self._after(completed=completed)

    def _after(self, *, completed: bool) -> None:
        """The handler is done: keep the connection, or close it."""
        if self._lost:
            return
        if self._channel is not None:
            self.close()
        elif not completed or self._h11.our_state is h11.SEND_BODY:
            self.abort()  # a stream cut in the middle must not look complete
        elif self._h11.our_state is h11.MUST_CLOSE or self._h11.our_state is h11.ERROR:
            self._linger()
        elif self._h11.their_state is h11.DONE:
            self._next_cycle()
        else:
            self._set_timer(BODY_TIMEOUT, self.abort)
            self.resume()
            self._pump()

    def _next_cycle(self) -> None:
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._linger()
            return
        self._body = None
        self._h11.start_next_cycle()
        self._set_timer(IDLE_TIMEOUT, self.abort)
        self.resume()
        self._pump()

    # -- answers

    def _keeps(self) -> bool:
        """Whether the rest of the request's body is cheap enough to keep the connection."""
        if self._h11.their_state is not h11.SEND_BODY:
            return True
        if self._h11.they_are_waiting_for_100_continue or self._body is None:
            return False
        return self._body.length is not None and self._body.length <= DISCARD_LIMIT

    def _head(self, content_type: str, extra: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", content_type.encode("ascii"))] if content_type else []
        headers += [(key.encode("ascii"), value.encode("latin-1")) for key, value in extra.items()]
        if not self._keeps():
            headers.append((b"connection", b"close"))
        return headers

    def _respond(self, response: Response) -> None:
        headers = self._head(response.content_type if response.body else "", response.headers)
        if response.status != 204:
            headers.append((b"content-length", b"%d" % len(response.body)))
        out = self._h11.send(h11.Response(status_code=response.status, headers=headers)) or b""
        if response.body and not self._head_only:
            body = self._h11.send(h11.Data(data=response.body)) or b""
            if len(body) < JOIN_LIMIT:
                out += body  # one packet
            else:
                self.write(out)
                out = b""
                self.write(body)
        self.write(out + (self._h11.send(h11.EndOfMessage()) or b""))

    def start_stream(
        self, request: Request, status: int, content_type: str, extra: Mapping[str, str]
    ) -> Stream:
        """Send a head; the body follows through the stream."""
        return self.start_raw_stream(
            status, self._head(content_type, {**extra, "X-Request-ID": request.id})
        )

    def start_raw_stream(self, status: int, headers: Headers, reason: bytes = b"") -> Stream:
        """Send exactly this head; the body follows through the stream."""
        head = h11.Response(status_code=status, headers=list(headers), reason=reason)
        self.write(self._h11.send(head) or b"")
        return Stream(self)

    def send_data(self, data: bytes) -> None:
        """A piece of the body."""
        if self._lost:
            raise gone()
        if data and not self._head_only:
            self.write(self._h11.send(h11.Data(data=data)) or b"")

    def end_stream(self) -> None:
        """The body is complete."""
        if not self._lost and self._h11.our_state is h11.SEND_BODY:
            self.write(self._h11.send(h11.EndOfMessage()) or b"")

    def _reject(self, error: h11.RemoteProtocolError) -> None:
        """The bytes are no HTTP: say so, close."""
        status = error.error_status_hint
        if self._body is not None and not self._body.complete:
            self._body.finish(gone())
        if self._task is not None:
            self._task.cancel()
        codes = {431: "headers_too_large", 413: "payload_too_large", 501: "not_implemented"}
        self._refuse(ApiError(status, codes.get(status, "bad_request"), f"bad request: {error}"))

    def _refuse(self, error: ApiError) -> None:
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = self._server.error_response(error, "")
            response.headers = {**response.headers, "Connection": "close"}
            self._respond(response)
        self._linger()

    # -- the raw connection

    def take_over(self) -> Channel:
        """Hand the raw bytes to the handler."""
        leftover, _ = self._h11.trailing_data
        self._clear_timer()
        self._channel = Channel(self, leftover)
        self.resume()
        return self._channel

    def write(self, data: bytes) -> None:
        """Write to the socket without waiting."""
        if self._transport is not None and data:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written.

        Raises:
            ClientGoneError: it is gone, or took nothing for too long.
        """
        if not self._can_write and not self._lost:
            loop = asyncio.get_running_loop()
            stall = loop.call_later(DRAIN_TIMEOUT, self.abort)
            try:
                while not self._can_write and not self._lost:
                    if self._drainer is None or self._drainer.done():
                        self._drainer = loop.create_future()
                    await asyncio.shield(self._drainer)
            finally:
                stall.cancel()
        if self._lost:
            raise gone()

    def unsent(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def set_send_buffer(self, size: int) -> None:
        """Let the kernel hold about this many bytes on their way to the client."""
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, size)

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._lost or self._transport is None or self._transport.is_closing()

    def pause(self) -> None:
        """Stop reading from the socket."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read from the socket again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything written has left."""
        if self._transport is not None:
            self._transport.close()

    def abort_after(self, seconds: float) -> None:
        """Close at once when it is still open then (a timer of ours would keep it in memory)."""
        if not self._lost:
            self._set_timer(seconds, self.abort)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _linger(self) -> None:
        """Half-close and read on for a while: closing with unread input would cut our answer."""
        if self._lost or self._lingering or self._transport is None:
            return
        self._lingering = True
        self._set_timer(LINGER_TIMEOUT, self.abort)
        if self._transport.is_closing():
            return
        if self._h11.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            self._transport.close()
            return
        self._transport.write_eof()
        self.resume()

    def _set_timer(self, seconds: float, action: Callable[[], None]) -> None:
        self._clear_timer()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, action)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
