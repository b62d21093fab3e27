"""The edge as the control plane sees it: publish, withdraw, sync."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Self

import structlog

from bastide.edge.maps import (
    MAP_NAME,
    GatewayEntry,
    GatewayEntryError,
    GatewayState,
    read_map,
    write_map,
)
from bastide.edge.runtime_socket import RuntimeSocket, RuntimeSocketError
from bastide.settings import Settings
from bastide.thread import in_thread

log = structlog.get_logger(__name__)

LATE = 0.15
"""Seconds a change of the file may wait for others; a HAProxy that ends is not back so soon."""


class Edge:
    """Keeps the gateway map: in its file, and in the HAProxy that runs now.

    The file is written before a call returns, so a HAProxy that starts reads what is in force;
    only that a machine was frozen or thawed, which neither opens nor closes anything, is written
    by `run`. The running HAProxy is told at once as well; when it cannot be reached, the call
    still succeeds and the next one, or `run`, sends the whole map as soon as it can. The control
    plane calls `sync` when it starts and from its sweep, so the map follows the database whatever
    was lost.

    One instance, in one process, owns the directory.
    """

    def __init__(self, directory: Path, socket: RuntimeSocket, subnet: IPv4Network) -> None:
        """Take up the map file in `directory` (made if missing).

        Raises:
            OSError: the directory or the file in it cannot be used.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._socket = socket
        self._subnet = subnet
        entries, wrong = read_map(directory, subnet)
        if wrong:
            log.warning("edge.map.lines_dropped", lines=wrong)
        self._lines = {entry.workspace_id: entry.line() for entry in entries.values()}
        self._wanted = 0
        self._written = 0
        self._late = asyncio.Event()
        self._writing = asyncio.Lock()
        self._telling = asyncio.Lock()
        self._process: int | None = None
        self._behind = asyncio.Event()
        self._behind.set()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The edge of this server."""
        socket = RuntimeSocket(settings.edge_socket, str(live_map(settings)))
        return cls(map_directory(settings), socket, settings.network.subnet)

    async def publish(
        self,
        workspace_id: str,
        address: str | None,
        generation: int,
        state: GatewayState,
        raw_token: str | None,
    ) -> None:
        """Put a workspace's entry in the place of the one it has (see `GatewayEntry`).

        All of it takes effect in one step, so nothing is open with half of its values.

        Raises:
            GatewayEntryError: a value is wrong, or the address is no workspace's.
            OSError: the map file could not be written; HAProxy was told all the same.
        """
        entry = GatewayEntry(workspace_id, address, generation, state, raw_token)
        if not entry.inside(self._subnet):
            raise GatewayEntryError(f"{entry.address} is no address of a workspace")
        line, before = entry.line(), self._lines.get(workspace_id, "")
        if line == before and self._settled:
            return
        self._lines[workspace_id] = line
        if line != before and _but_for_pause(line) == _but_for_pause(before):
            self._late.set()
            await self._tell(workspace_id)
        else:
            await self._enforce(self._tell(workspace_id))

    @property
    def _settled(self) -> bool:
        """Whether file and HAProxy have all that is wanted, and nobody is at it."""
        busy = self._writing.locked() or self._telling.locked() or self._behind.is_set()
        return not busy and self._written == self._wanted

    async def withdraw(self, workspace_id: str) -> None:
        """Forget a workspace: its tokens get 404. An unknown one is forgotten already.

        Raises:
            OSError: the map file could not be written; HAProxy was told all the same.
        """
        self._lines.pop(workspace_id, None)
        await self._enforce(self._tell(workspace_id))

    async def sync(self, entries: Iterable[GatewayEntry]) -> None:
        """Put these entries in the place of all there are, in file and HAProxy.

        One whose address is no workspace's is left out: it must not keep the others from theirs.

        Raises:
            OSError: the map file could not be written; HAProxy was told all the same.
        """
        lines: dict[str, str] = {}
        for entry in entries:
            if entry.inside(self._subnet):
                lines[entry.workspace_id] = entry.line()
            else:
                log.error("edge.entry_left_out", workspace_id=entry.workspace_id)
        self._lines = lines
        await self._enforce(self._resend())

    async def run(self, interval: float = 1.0) -> None:
        """Keep HAProxy in step until cancelled.

        Looks every `interval` seconds whether another HAProxy process answers than the one that
        was told last, and sends the whole map when it does or when an update failed; and writes
        the file soon after it is late.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look(interval))
            tasks.create_task(self._write_late(interval))

    async def _look(self, interval: float) -> None:
        while True:
            try:
                process = await self._socket.process()
            except RuntimeSocketError:
                self._behind.set()
            else:
                if process != self._process or self._behind.is_set():
                    await self._resend()
            await asyncio.sleep(interval)

    async def _write_late(self, interval: float) -> None:
        while True:
            await self._late.wait()
            await asyncio.sleep(LATE)
            try:
                await self._store()
            except OSError as error:
                log.warning("edge.map.unwritten", error=str(error))
                await asyncio.sleep(interval)

    async def _enforce(self, telling: Coroutine[None, None, None]) -> None:
        """Write the file while HAProxy is told: a full disk must not keep open what was closed."""
        told = asyncio.ensure_future(telling)
        try:
            await self._store()
        finally:
            await told

    async def _store(self) -> None:
        """Write the file; callers that wait at the same time share one write."""
        self._wanted += 1
        mine = self._wanted
        async with self._writing:
            if self._written >= mine:
                return
            covers, late = self._wanted, self._late.is_set()
            self._late.clear()
            try:
                await in_thread(write_map, self._directory, list(self._lines.values()))
            except BaseException:
                if late:
                    self._late.set()
                raise
            self._written = covers

    async def _tell(self, workspace_id: str) -> None:
        """Bring one entry of the running HAProxy to what is wanted now."""
        async with self._telling:
            if self._behind.is_set():
                # It may have come back since `run` last looked: then this is in force at once.
                await self._send_all()
                return
            line = self._lines.get(workspace_id)
            try:
                if line is None:
                    await self._socket.remove(workspace_id)
                else:
                    await self._socket.put(workspace_id, line.split(maxsplit=1)[1].rstrip())
            except RuntimeSocketError as error:
                self._fall_behind(error)

    async def _resend(self) -> None:
        """Bring all entries of the running HAProxy to what is wanted now."""
        async with self._telling:
            await self._send_all()

    async def _send_all(self) -> None:
        """The same, for who has the turn to tell."""
        try:
            process = await self._socket.process()
            await self._socket.replace(list(self._lines.values()))
        except RuntimeSocketError as error:
            self._fall_behind(error)
            return
        self._process = process
        self._behind.clear()
        log.info("edge.map.sent", process=process, workspaces=len(self._lines))

    def _fall_behind(self, error: RuntimeSocketError) -> None:
        if not self._behind.is_set():
            log.warning("edge.unreachable", error=str(error))
        self._behind.set()


def _but_for_pause(line: str) -> str:
    """A line of the map, the same whether its machine is frozen or not."""
    return line.replace(" paused:", " open:", 1)


def map_directory(settings: Settings) -> Path:
    """Where the control plane keeps the map file."""
    return settings.edge_dir / "gateway"


def live_map(settings: Settings) -> Path:
    """The checked copy HAProxy reads when it starts, and the name it knows the map by."""
    return settings.run_dir / "edge" / MAP_NAME
