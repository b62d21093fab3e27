"""The connection to the node: what workspaces may ask, and which addresses may be given out."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import structlog
from pydantic import ValidationError

from bastide.domain.egress import Names, destinations
from bastide.domain.resolving import (
    LINE,
    LONGEST,
    MOST_ADDRESSES,
    SHORTEST,
    Ask,
    FromNode,
    FromResolver,
    Grant,
    Heard,
    Restrictions,
    Told,
)

AGAIN = 0.2
PATIENCE = 2.0
MOST_HELD = 20_000
"""Grants that are remembered."""
MOST_UNREAD = 1 << 20
"""Bytes the node has not read yet; beyond, it is not told for the log what was answered."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """A grant that holds `until` a monotonic time, for addresses that were asked for."""

    until: float
    asked: frozenset[IPv4Address]
    addresses: tuple[IPv4Address, ...]


class Away(Exception):  # noqa: N818 - reads as a state, which it is
    """The node does not answer now."""


class Node:
    """Holds the restrictions, also while the node is away: then nothing new is granted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[IPv4Address, Names | None] = {}
        self._told = False
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Grant]] = {}
        self._granted: OrderedDict[tuple[IPv4Address, str], _Held] = OrderedDict()
        self._writer: asyncio.StreamWriter | None = None

    def names(self, workspace: IPv4Address) -> Names | None:
        """The names it may ask for; None: all.

        Raises:
            Away: the node has not said yet.
        """
        if not self._told:
            raise Away
        return self._names.get(workspace)

    def watched(self, workspace: IPv4Address) -> bool:
        """Whether the node wants to know what the workspace is told."""
        return workspace in self._names

    async def grant(
        self, workspace: IPv4Address, name: str, addresses: Iterable[IPv4Address], ttl: int
    ) -> tuple[IPv4Address, ...]:
        """Those of the addresses that may be given out; the firewall has let them in by then.

        Raises:
            Away: the node did not answer.
        """
        wanted = tuple(addresses)[:MOST_ADDRESSES]
        held = self._granted.get((workspace, name))
        until = time.monotonic() + min(max(ttl, SHORTEST), LONGEST)
        if held is not None and held.until >= until and held.asked.issuperset(wanted):
            return tuple(address for address in wanted if address in held.addresses)
        grant = await self._ask(workspace, name, wanted, ttl)
        held = _Held(time.monotonic() + grant.seconds, frozenset(wanted), grant.addresses)
        self._granted[workspace, name] = held
        self._granted.move_to_end((workspace, name))
        while len(self._granted) > MOST_HELD:
            self._granted.popitem(last=False)
        return grant.addresses

    async def _ask(
        self, workspace: IPv4Address, name: str, wanted: tuple[IPv4Address, ...], ttl: int
    ) -> Grant:
        self._number += 1
        number = self._number
        answer: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            ask = Ask(number=number, workspace=workspace, name=name, addresses=wanted, ttl=ttl)
            self._write(FromResolver(ask=ask))
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            raise Away from None
        finally:
            del self._waiting[number]

    def tell(
        self, workspace: IPv4Address, name: str, addresses: Iterable[IPv4Address] = ()
    ) -> None:
        """Tell what a workspace was told, or with no addresses that it was refused a name."""
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() > MOST_UNREAD:
            return
        told = Told(workspace=workspace, name=name, addresses=tuple(addresses)[:MOST_ADDRESSES])
        try:
            self._write(FromResolver(told=told))
        except Away:
            return

    async def run(self) -> None:
        """Keep the connection, until cancelled."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path), limit=LINE)
            except OSError:
                await asyncio.sleep(AGAIN)
                continue
            self._writer = writer
            try:
                while line := await reader.readline():
                    self._hear(FromNode.model_validate_json(line))
            except (ValidationError, ValueError, ConnectionError, Away) as error:
                _log.warning("node.not_understood", reason=str(error)[:300])
            finally:
                self._writer = None
                writer.close()
                for answer in self._waiting.values():
                    if not answer.done():
                        answer.set_exception(Away())
            _log.info("node.away")
            await asyncio.sleep(AGAIN)

    def _hear(self, line: FromNode) -> None:
        if line.restrictions is not None:
            self._restrict(line.restrictions)
        if line.grant is not None:
            self._answered(line.grant)

    def _restrict(self, told: Restrictions) -> None:
        if told.whole:
            self._names.clear()
            self._granted.clear()
        for pair in [pair for pair in self._granted if pair[0] in told.workspaces]:
            del self._granted[pair]
        for workspace, restriction in told.workspaces.items():
            if restriction is None:
                self._names.pop(workspace, None)
            else:
                names = restriction.names
                self._names[workspace] = None if names is None else destinations(names).names
        self._told = True
        self._write(FromResolver(heard=Heard(number=told.number)))

    def _answered(self, grant: Grant) -> None:
        answer = self._waiting.get(grant.number)
        if answer is not None and not answer.done():
            answer.set_result(grant)

    def _write(self, line: FromResolver) -> None:
        if self._writer is None or self._writer.is_closing():
            raise Away
        self._writer.write(line.model_dump_json(exclude_none=True).encode() + b"\n")
