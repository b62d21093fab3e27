"""Carry one request to an app on a loopback port, and its answer back as it is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import h11

from bastide_agent.http.errors import ApiError, ClientGoneError
from bastide_agent.proxy.target import app_headers, end_to_end, is_upgrade

if TYPE_CHECKING:
    from bastide_agent.http.channel import Channel
    from bastide_agent.http.message import Request
    from bastide_agent.http.streams import Stream
    from bastide_agent.proxy.target import Target

CONNECT_TIMEOUT = 5.0  # seconds; loopback answers at once or not at all
CHUNK = 65536
HEAD_LIMIT = 64 * 1024


class App:
    """A connection to an app: h11 over a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)

    @classmethod
    async def connect(cls, target: Target) -> App:
        """Connect.

        Raises:
            ApiError: 502, nothing listens there.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(
                    target.host, target.port, limit=2 * CHUNK
                )
        except OSError:  # refused, and the time-out
            message = f"nothing listens on {target.host}:{target.port} in this workspace"
            raise ApiError(502, "bad_gateway", message) from None
        return cls(reader, writer)

    async def send(self, event: h11.Event) -> None:
        """Send a part of the request."""
        self.writer.write(self.http.send(event) or b"")
        await self.writer.drain()

    async def next(self) -> h11.Event:
        """The next part of the answer.

        Raises:
            h11.RemoteProtocolError: it is no HTTP, or ends in the middle.
        """
        while True:
            event = self.http.next_event()
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:
                raise h11.RemoteProtocolError("data after the end of the answer")
            self.http.receive_data(await self.reader.read(CHUNK))

    def close(self) -> None:
        """Let go of the connection."""
        self.writer.close()


async def forward(request: Request, target: Target) -> None:
    """Forward a request and stream its answer.

    Raises:
        ApiError: 502, nothing listens or what answers speaks no HTTP.
        ClientGoneError: the client or, in the middle of its answer, the app is gone.
    """
    app = await App.connect(target)
    sending: asyncio.Future[None] | None = None
    try:
        head = h11.Request(
            method=request.method, target=target.path, headers=app_headers(request, target)
        )
        await app.send(head)
        sending = asyncio.ensure_future(_send_body(request, app))
        if is_upgrade(request):  # a 101 is an answer to a complete request
            await sending
        response = await _answer_head(app)
        if isinstance(response, h11.InformationalResponse):
            await _switch(request, app, response)
            return
        headers = end_to_end(list(response.headers))
        stream = await request.start_raw(response.status_code, headers, bytes(response.reason))
        await _copy_body(app, stream)
    except (h11.LocalProtocolError, ValueError):
        message = "the request cannot be carried to the app: its path or a header is malformed"
        raise ApiError(400, "bad_request", message) from None
    finally:
        if sending is not None:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await sending
        app.close()


async def _send_body(request: Request, app: App) -> None:
    """The request's body, as it arrives; an app that answers early may not want all of it."""
    with contextlib.suppress(OSError):
        async for data in request.body:
            await app.send(h11.Data(data=data))
        await app.send(h11.EndOfMessage())


async def _answer_head(app: App) -> h11.Response | h11.InformationalResponse:
    """The head of the answer; of the 1xx only the 101 counts."""
    try:
        while True:
            event = await app.next()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return event
                continue
            raise ApiError(502, "bad_gateway", "the app closed the connection without an answer")
    except (h11.RemoteProtocolError, OSError) as error:
        raise ApiError(502, "bad_gateway", f"the app's answer is no HTTP: {error}") from None


async def _copy_body(app: App, stream: Stream) -> None:
    try:
        while True:
            event = await app.next()
            if isinstance(event, h11.Data):
                await stream.write(bytes(event.data))
            else:
                return
    except (h11.RemoteProtocolError, OSError) as error:
        # Too late for a status: cut the answer, so that it cannot be taken for complete.
        raise ClientGoneError(str(error)) from None


async def _switch(request: Request, app: App, response: h11.InformationalResponse) -> None:
    """The app left HTTP (a WebSocket): from here on bytes are carried both ways."""
    channel = request.take_over()
    lines = [b"HTTP/1.1 101 " + (bytes(response.reason) or b"Switching Protocols")]
    lines += [name + b": " + value for name, value in response.headers.raw_items()]
    await channel.write(b"\r\n".join(lines) + b"\r\n\r\n" + app.http.trailing_data[0])
    ways = (
        asyncio.ensure_future(_to_app(channel, app)),
        asyncio.ensure_future(_to_client(channel, app)),
    )
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _to_app(channel: Channel, app: App) -> None:
    while data := await channel.read():
        app.writer.write(data)
        await app.writer.drain()


async def _to_client(channel: Channel, app: App) -> None:
    while data := await app.reader.read(CHUNK):
        await channel.write(data)
