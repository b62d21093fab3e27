"""HAProxy's runtime API: the few map commands the control plane uses."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

_ANSWER_LIMIT = 64 * 1024 * 1024
_PIECE = 64 * 1024
_PAYLOAD = 8 * 1024  # HAProxy takes a command and its payload in one buffer (16 KiB)


class RuntimeSocketError(Exception):
    """HAProxy could not be asked, or did not do what it was asked to."""


class RuntimeSocket:
    """One map of a running HAProxy, over its admin socket.

    Every call opens a connection of its own, so it reaches whichever HAProxy listens now.
    """

    def __init__(self, socket: Path, map_name: str, deadline: float = 2.0) -> None:
        """`map_name` is the file name HAProxy knows the map by; `deadline` is seconds per call."""
        self._socket = socket
        self._map = map_name
        self._deadline = deadline

    async def process(self) -> int:
        """The process id of the HAProxy that listens now.

        Raises:
            RuntimeSocketError: none answers.
        """
        answer = await self._ask("show info")
        found = re.search(r"^Pid: (\d+)$", answer, re.MULTILINE)
        if found is None:
            raise RuntimeSocketError("HAProxy did not say its process id")
        return int(found[1])

    async def put(self, key: str, value: str) -> None:
        """Set one entry, added if it is not there.

        Raises:
            RuntimeSocketError: HAProxy did not do it.
        """
        answer = await self._ask(f"set map {self._map} {key} {value}")
        if "not found" in answer.lower() and self._map not in answer:
            answer = await self._ask(f"add map {self._map} {key} {value}")
        _must_be_silent(answer)

    async def remove(self, key: str) -> None:
        """Remove one entry; one that is not there is removed already.

        Raises:
            RuntimeSocketError: HAProxy did not do it.
        """
        answer = await self._ask(f"del map {self._map} {key}")
        if "key not found" not in answer.lower():
            _must_be_silent(answer)

    async def replace(self, lines: Iterable[str]) -> None:
        """Put all `key value` lines in the place of all entries, in one step.

        Requests see the whole old map or the whole new one. A call that breaks off leaves the
        old one.

        Raises:
            RuntimeSocketError: HAProxy did not do it.
        """
        answer = await self._ask(f"prepare map {self._map}")
        found = re.search(r"New version created: (\d+)", answer)
        if found is None:
            raise RuntimeSocketError(f"HAProxy prepared no map: {answer.strip()[:200]}")
        version = found[1]
        for payload in _payloads(lines):
            _must_be_silent(await self._ask(f"add map @{version} {self._map} <<\n{payload}"))
        _must_be_silent(await self._ask(f"commit map @{version} {self._map}"))

    async def entries(self) -> dict[str, str]:
        """What HAProxy has in the map now.

        Raises:
            RuntimeSocketError: it did not answer.
        """
        answer = await self._ask(f"show map {self._map}")
        rows = [line.split(" ", 2) for line in answer.splitlines() if line.startswith("0x")]
        return {row[1]: row[2] for row in rows if len(row) == 3}

    async def _ask(self, command: str) -> str:
        """Send one command, read the whole answer."""
        loop, answer = asyncio.get_running_loop(), bytearray()
        try:
            async with asyncio.timeout(self._deadline):
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.setblocking(False)
                    await loop.sock_connect(connection, str(self._socket))
                    await loop.sock_sendall(connection, command.encode("ascii") + b"\n")
                    while chunk := await loop.sock_recv(connection, _PIECE):
                        answer += chunk
                        if len(answer) > _ANSWER_LIMIT:
                            raise RuntimeSocketError("HAProxy does not stop answering")
        except TimeoutError:
            raise RuntimeSocketError(f"HAProxy did not answer in {self._deadline} s") from None
        except OSError as error:
            raise RuntimeSocketError(f"HAProxy cannot be reached: {error}") from None
        if not answer:
            raise RuntimeSocketError("HAProxy closed its socket without an answer")
        return answer.decode("ascii", "replace")


def _must_be_silent(answer: str) -> None:
    """HAProxy answers an empty line when it did what it was asked to."""
    if answer.strip():
        raise RuntimeSocketError(f"HAProxy refused a map command: {answer.strip()[:200]}")


def _payloads(lines: Iterable[str]) -> Iterator[str]:
    """Lines joined to payloads that fit into HAProxy's buffer."""
    batch: list[str] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > _PAYLOAD:
            yield "".join(batch)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield "".join(batch)
