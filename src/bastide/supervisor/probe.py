"""Whether a service answers: one short request, over a unix socket or TCP."""

from __future__ import annotations

import asyncio
from pathlib import Path

DEADLINE = 2.0


async def socket_answers(socket: Path, target: str) -> bool:
    """Whether `GET target` on the unix socket gives 200."""
    try:
        async with asyncio.timeout(DEADLINE):
            return await _answers(*await asyncio.open_unix_connection(socket), target)
    except (OSError, TimeoutError, ValueError):
        return False


async def address_answers(address: str, target: str) -> bool:
    """Whether `GET target` at `host:port` gives 200."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(DEADLINE):
            streams = await asyncio.open_connection(host.strip("[]"), int(port))
            return await _answers(*streams, target)
    except (OSError, TimeoutError, ValueError):
        return False


async def greets(address: str, greeting: bytes) -> bool:
    """Whether whoever listens at `host:port` speaks first, and so."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                return await reader.readexactly(len(greeting)) == greeting
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, EOFError):
        return False


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> bool:
    try:
        request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        await writer.drain()
        status = await reader.readline()
        return status.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))
    finally:
        writer.close()
