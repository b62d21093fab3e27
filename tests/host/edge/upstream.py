"""A small HTTP server that stands for a workspace's runtime and tells what it was sent."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import h11
import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, TextMessage

CHUNK = 64 * 1024


class Upstream:
    """One server. `seen` are the requests it got, oldest first; `clients` counts connections."""

    def __init__(self, name: str, address: str | None, port: int = 0, path: str = "") -> None:
        self.name = name
        self.address = address
        self.port = port
        self.path = path
        self.seen: list[dict[str, object]] = []
        self.connections: Counter[str] = Counter()
        self.next_event = asyncio.Semaphore(0)
        self.stream_closed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if self.path:
            self._server = await asyncio.start_unix_server(self._accept, self.path)
        else:
            self._server = await asyncio.start_server(self._accept, self.address, self.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections["all"] += 1
        number = self.connections["all"]
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                request = await _event(connection, reader)
                if not isinstance(request, h11.Request):
                    return
                await self._answer(connection, reader, writer, request, number)
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return
                connection.start_next_cycle()
        except (OSError, h11.ProtocolError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _answer(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: h11.Request,
        number: int,
    ) -> None:
        target = request.target.decode()
        path = urlsplit(target).path
        query = parse_qs(urlsplit(target).query)
        what: dict[str, object] = {
            "server": self.name,
            "connection": number,
            "method": request.method.decode(),
            "target": target,
            "headers": [[name.decode(), value.decode()] for name, value in request.headers],
        }
        self.seen.append(what)
        if path.endswith("/ws"):
            await _websocket(connection, reader, writer, request)
            return
        if path == "/broken":
            writer.write(b"this is no HTTP\r\n\r\n")
            await writer.drain()
            return
        digest, size = await _body(connection, reader)
        what |= {"sha256": digest, "size": size}
        if path == "/sse":
            await self._events(connection, reader, writer)
        elif path == "/download":
            await _download(connection, writer, int(query["n"][0]))
        elif path.startswith("/proxy"):
            own = [("Access-Control-Allow-Origin", "https://app.example"), ("Set-Cookie", "a=b")]
            await _json(connection, writer, what, own)
        else:
            await _json(connection, writer, what, [("Set-Cookie", "a=b")])

    async def _events(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """One event for each release of `next_event`; ends when the client goes."""
        head = h11.Response(status_code=200, headers=[("Content-Type", "text/event-stream")])
        writer.write(connection.send(head) or b"")
        gone = asyncio.ensure_future(reader.read(1))
        number = 0
        try:
            while True:
                step = asyncio.ensure_future(self.next_event.acquire())
                done, _ = await asyncio.wait({gone, step}, return_when=asyncio.FIRST_COMPLETED)
                if gone in done:
                    step.cancel()
                    return
                data = h11.Data(f'event: tick\ndata: {{"n":{number}}}\n\n'.encode())
                writer.write(connection.send(data) or b"")
                await writer.drain()
                number += 1
        finally:
            gone.cancel()
            self.stream_closed.set()


async def _event(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(CHUNK))
    return event


async def _body(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while isinstance(event := await _event(connection, reader), h11.Data):
        digest.update(event.data)
        size += len(event.data)
    return digest.hexdigest(), size


async def _json(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    what: dict[str, object],
    headers: list[tuple[str, str]],
) -> None:
    body = json.dumps(what).encode()
    head = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers]
    writer.write(connection.send(h11.Response(status_code=200, headers=head)) or b"")
    if what["method"] != "HEAD":
        writer.write(connection.send(h11.Data(body)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()


async def _download(connection: h11.Connection, writer: asyncio.StreamWriter, size: int) -> None:
    writer.write(connection.send(h11.Response(status_code=200, headers=[])) or b"")
    left = size
    while left:
        part = b"x" * min(left, CHUNK)
        writer.write(connection.send(h11.Data(part)) or b"")
        await writer.drain()
        left -= len(part)
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()


async def _websocket(
    connection: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: h11.Request,
) -> None:
    """Echo every message until the client closes."""
    del connection
    socket = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    socket.initiate_upgrade_connection(list(request.headers), request.target)
    writer.write(socket.send(AcceptConnection()))
    while True:
        for event in socket.events():
            if isinstance(event, TextMessage):
                more = TextMessage(event.data, message_finished=event.message_finished)
                writer.write(socket.send(more))
            elif isinstance(event, BytesMessage):
                part = BytesMessage(bytes(event.data), message_finished=event.message_finished)
                writer.write(socket.send(part))
            elif isinstance(event, Ping):
                writer.write(socket.send(event.response()))
            elif isinstance(event, CloseConnection):
                writer.write(socket.send(event.response()))
                await writer.drain()
                return
        await writer.drain()
        data = await reader.read(CHUNK)
        socket.receive_data(data or None)
        if not data:
            return
