"""The runtime server on port 9990: on and off, its token, and the features it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from bastide_agent.http.router import Router
from bastide_agent.http.server import Server

if TYPE_CHECKING:
    from bastide_agent.boot import Port
    from bastide_agent.process import Places

FEATURES = (
    "bastide_agent.info",
    "bastide_agent.live",
    "bastide_agent.openapi.routes",
    "bastide_agent.exec.routes",
    "bastide_agent.files.routes",
    "bastide_agent.proxy.routes",
    "bastide_agent.search.routes",
    "bastide_agent.transfer.routes",
)  # fmt: skip


def load() -> list[ModuleType]:
    """Every feature, read in; the first time this is most of what an agent's start takes."""
    return [import_module(name) for name in FEATURES]


class Runtime:
    """What the features share: `places` for processes, and what must end with the server."""

    def __init__(self, port: Port, places: Places) -> None:
        self.places = places
        self._address = port
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._sleepers: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._lock = asyncio.Lock()
        router = Router()
        for feature in load():
            feature.register(router, self)
        self.server = Server(router, port.token)

    def on_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Call this when runtime access is disabled and when the agent stops."""
        self._closers.append(closer)

    def on_snapshot(self, rest: Callable[[], None], wake: Callable[[], None]) -> None:
        """Call `rest` before the memory is captured, and `wake` when the machine goes on."""
        self._sleepers.append((rest, wake))

    @property
    def enabled(self) -> bool:
        """Whether it is served."""
        return self.server.running

    @property
    def port(self) -> int:
        """Where it listens, or will."""
        return self.server.port or int(self._address.port)

    async def enable(self, token: str) -> None:
        """Serve with this token; another one than before cuts older connections (spec 3.4).

        Raises:
            OSError: the port cannot be used.
        """
        async with self._lock:
            if self.server.token != token:
                self.server.token = token
                self.server.drop_connections()
            if not self.server.running:
                await self.server.start(self._address.host, self.port)

    async def disable(self) -> None:
        """Stop serving: connections closed, sessions and tasks ended (spec 15)."""
        async with self._lock:
            self.server.stop()
            self.server.token = None
            await self.close()

    def rest(self) -> None:
        """Let the features let go of what a snapshot cannot hold."""
        for rest, _ in self._sleepers:
            rest()

    def wake(self) -> None:
        """Let the features go on; harmless when they do not rest."""
        for _, wake in self._sleepers:
            wake()

    async def close(self) -> None:
        """End what the features hold."""
        for closer in self._closers:
            await closer()
