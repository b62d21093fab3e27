"""The sockets of the resolver: UDP and TCP on the gateway address."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from ipaddress import IPv4Address
from typing import cast

from bastide.resolver.answers import Answers

PORT = 53
IDLE = 5.0
"""Seconds a TCP connection may be silent."""
MOST_OF_ONE = 8
"""TCP connections of one workspace; more are closed at once."""
_LONGEST = 4096
"""Bytes of a question over TCP."""
_FREEBIND = 15  # IP_FREEBIND: the address is there only while there are workspaces


def bind(gateway: IPv4Address, port: int = PORT) -> tuple[socket.socket, socket.socket]:
    """The UDP and the listening TCP socket, while there is the privilege for port 53.

    Raises:
        OSError: another program has the port on all addresses.
    """
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for one in (udp, tcp):
            one.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            one.bind((str(gateway), port))
            one.setblocking(False)
        tcp.listen(128)
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp


async def serve(answers: Answers, udp: socket.socket, tcp: socket.socket) -> None:
    """Answer until cancelled."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(answers), sock=udp)
    streams = _Streams(answers)
    server = await asyncio.start_server(streams.connected, sock=tcp, limit=_LONGEST + 2)
    try:
        await server.serve_forever()
    finally:
        transport.close()


class _Datagrams(asyncio.DatagramProtocol):
    """One task for each question; how many there are is bounded by `Answers`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is none by its class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.create_task(self._answer(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def error_received(self, exc: Exception) -> None:
        """A workspace did not want its answer: that is its business."""

    async def _answer(self, data: bytes, peer: tuple[str, int]) -> None:
        answer = await self._answers.answer(IPv4Address(peer[0]), data, tcp=False)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, peer)


class _Streams:
    """TCP connections, a few of each workspace, one question at a time."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._open: Counter[IPv4Address] = Counter()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        workspace = IPv4Address(writer.get_extra_info("peername")[0])
        if self._open[workspace] >= MOST_OF_ONE:
            writer.transport.abort()
            return
        self._open[workspace] += 1
        try:
            with suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._exchange(workspace, reader, writer)
        finally:
            self._open[workspace] -= 1
            if not self._open[workspace]:
                del self._open[workspace]
            writer.transport.abort()

    async def _exchange(
        self, workspace: IPv4Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with asyncio.timeout(IDLE):
            length = int.from_bytes(await reader.readexactly(2), "big")
            if length > _LONGEST:
                raise ConnectionError("a question longer than any")
            question = await reader.readexactly(length)
        answer = await self._answers.answer(workspace, question, tcp=True)
        if answer is None:
            raise ConnectionError("no answer to give")
        async with asyncio.timeout(IDLE):
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
