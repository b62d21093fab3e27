"""The resolver's counter: a socket on which bastide-resolver hears the rules and asks."""

from __future__ import annotations

import asyncio
import grp
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import structlog
from pydantic import ValidationError

from bastide.domain.resolving import (
    LINE,
    Ask,
    FromNode,
    FromResolver,
    Grant,
    Restriction,
    Restrictions,
    Told,
)
from bastide.node.errors import NotReady
from bastide.node.network.firewall import Firewall
from bastide.node.network.permits import Granted
from bastide.node.socket import listen

TOLD_WITHIN = 1.0
"""Seconds a change waits for the resolver; without it names stay closed rather than open."""
_MOST_AT_ONCE = 256
_log = structlog.get_logger(__name__)
_Question = tuple[asyncio.StreamWriter, Ask]


class Desk:
    """Tells the resolver how far each workspace's questions go, and lets in what it asks for.

    What the resolver says is checked: it reaches nothing but addresses for names that the
    workspace's policy lists, outside of every forbidden range. There is one resolver: a new
    connection ends the one before.
    """

    def __init__(
        self, path: Path, group: str, firewall: Firewall, note: Callable[[Told], None]
    ) -> None:
        self._path = path
        self._group = group
        self._firewall = firewall
        self._note = note
        self._restrictions: dict[IPv4Address, Restriction] = {}
        self._number = 0
        self._heard = 0
        self._progress = asyncio.Condition()
        # Each with the connection it came by: numbers of one mean nothing on the next.
        self._asked: asyncio.Queue[_Question] = asyncio.Queue(maxsize=4096)
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._granting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen. Without the resolver's group nobody can connect, and names stay closed."""
        if self._server is not None:
            return
        try:
            grp.getgrnam(self._group)
        except KeyError:
            _log.error("no resolver: there is no such user; script/up makes it", user=self._group)
            return
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._server = await asyncio.start_unix_server(
            self._connected, sock=listen(self._path, self._group), limit=LINE
        )
        self._granting = asyncio.create_task(self._grant())

    async def close(self) -> None:
        """End the connection; the resolver goes on with what it knows."""
        for task in (self._reading, self._granting):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._reading = self._granting = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._server is not None:
            self._server.close()
            self._server = None

    async def tell(self, workspace: IPv4Address, restriction: Restriction | None) -> None:
        """Change one restriction, and return once the resolver keeps to it, or is not there."""
        if self._restrictions.get(workspace) == restriction:
            return
        if restriction is None:
            self._restrictions.pop(workspace, None)
        else:
            self._restrictions[workspace] = restriction
        await self._send({workspace: restriction}, whole=False)

    async def tell_all(
        self, restrictions: Mapping[IPv4Address, Restriction], *, again: bool = False
    ) -> None:
        """Replace all restrictions; `again`: even by the same, so that it asks for all anew."""
        if again or self._restrictions != restrictions:
            self._restrictions = dict(restrictions)
            await self._send(restrictions, whole=True)

    async def _send(
        self, changes: Mapping[IPv4Address, Restriction | None], *, whole: bool
    ) -> None:
        self._number += 1
        number = self._number
        if self._writer is None:
            return
        told = Restrictions(number=number, whole=whole, workspaces=dict(changes))
        self._write(FromNode(restrictions=told))
        try:
            async with asyncio.timeout(TOLD_WITHIN), self._progress:
                await self._progress.wait_for(lambda: self._heard >= number or self._writer is None)
        except TimeoutError:
            _log.warning("resolver.slow", number=number)

    def _write(self, line: FromNode) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(line.model_dump_json(exclude_none=True).encode() + b"\n")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
        self._writer = writer
        self._heard = 0
        self._reading = asyncio.current_task()
        all_of_it = Restrictions(
            number=self._number, whole=True, workspaces=dict(self._restrictions)
        )
        self._write(FromNode(restrictions=all_of_it))
        _log.info("resolver.connected", restricted=len(self._restrictions))
        try:
            while line := await reader.readline():
                await self._hear(FromResolver.model_validate_json(line), writer)
        except (ValidationError, ValueError, ConnectionError) as error:
            _log.warning("resolver.cut_off", reason=str(error)[:300])
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None
                async with self._progress:
                    self._progress.notify_all()

    async def _hear(self, line: FromResolver, writer: asyncio.StreamWriter) -> None:
        if line.ask is not None:
            await self._asked.put((writer, line.ask))
        if line.told is not None:
            self._note(line.told)
        if line.heard is not None:
            async with self._progress:
                self._heard = line.heard.number
                self._progress.notify_all()

    async def _grant(self) -> None:
        """Answer questions, as many as are waiting in one transaction."""
        while True:
            asked = [await self._asked.get()]
            while len(asked) < _MOST_AT_ONCE and not self._asked.empty():
                asked.append(self._asked.get_nowait())
            asks = [ask for writer, ask in asked if writer is self._writer]
            if asks:
                try:
                    await self._answer(asks, self._writer)
                except Exception:  # noqa: BLE001 - without this task no name opens any more
                    _log.exception("resolver.grant_failed", asks=len(asks))

    async def _answer(self, asks: Sequence[Ask], writer: asyncio.StreamWriter | None) -> None:
        """Let in what was asked for by `writer`, and tell it."""
        granted: Sequence[Granted] = [Granted() for _ in asks]
        try:
            granted = await self._firewall.permit(_wanted(asks))
        except NotReady as error:
            _log.error("resolver.not_granted", reason=error.message)
        if writer is not self._writer:
            return
        for ask, grant in zip(asks, granted, strict=True):
            addresses, seconds = grant.addresses, grant.seconds
            answer = Grant(number=ask.number, addresses=addresses, seconds=seconds)
            self._write(FromNode(grant=answer))
            self._note(Told(workspace=ask.workspace, name=ask.name, addresses=addresses))


def _wanted(
    asks: Iterable[Ask],
) -> list[tuple[IPv4Address, str, tuple[IPv4Address, ...], int]]:
    return [(ask.workspace, ask.name, ask.addresses, ask.ttl) for ask in asks]
