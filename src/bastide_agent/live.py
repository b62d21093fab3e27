"""Terminals, watchers, and the one WebSocket that carries both.

Nothing of it is loaded before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bastide_agent.terminals import routes as terminal_routes
from bastide_agent.watchers import routes as watcher_routes
from bastide_agent.ws import routes as ws_routes

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.http.websocket import WebSocket
    from bastide_agent.process import Places
    from bastide_agent.runtime import Runtime
    from bastide_agent.terminals.sessions import Sessions
    from bastide_agent.watchers.watchers import Watchers
    from bastide_agent.ws.link import Link, Source


def register(router: Router, runtime: Runtime) -> None:
    """Serve `/terminals`, `/watchers` and `/ws`."""
    live = Live(runtime.places)
    terminal_routes.register(router, live)
    watcher_routes.register(router, live)
    ws_routes.register(router, live)
    runtime.on_close(live.close)
    runtime.on_snapshot(live.rest, live.wake)


class Live:
    """What the three share: the sources of news, and the connection they go to."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._terminals: Sessions | None = None
        self._watchers: Watchers | None = None
        self._link: Link | None = None
        self._leaving: Link | None = None

    @property
    def terminals(self) -> Sessions:
        """The terminals of the workspace."""
        if self._terminals is None:
            from bastide_agent.terminals.sessions import Sessions  # noqa: PLC0415

            self._terminals = Sessions(self._places, self)
        return self._terminals

    @property
    def watchers(self) -> Watchers:
        """The watchers of the workspace."""
        if self._watchers is None:
            from bastide_agent.watchers.watchers import Watchers  # noqa: PLC0415

            self._watchers = Watchers(self)
        return self._watchers

    def sources(self) -> list[Source]:
        """Everything that has news for the connection."""
        found: list[Source] = []
        if self._terminals is not None:
            found += self._terminals.list()
        if self._watchers is not None:
            found += self._watchers.list()
        return found

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""
        return self._link is not None

    def changed(self) -> None:
        """A source has news."""
        if self._link is not None:
            self._link.pump()

    async def connect(self, socket: WebSocket) -> None:
        """Serve a connection to its end. It takes over from the one before (spec runtime 8)."""
        from bastide_agent.ws.link import Link  # noqa: PLC0415

        if self._link is not None:
            if self._leaving is not None:
                self._leaving.abort()  # so that at most two hold unsent bytes
            self._leaving = self._link
            self._link.take_over()
        link = self._link = Link(socket, self)
        for source in self.sources():
            source.attach()
        try:
            await link.run()
        finally:
            if self._leaving is link:
                self._leaving = None
            if self._link is link:
                self._link = None
                for source in self.sources():
                    source.detach()

    def rest(self) -> None:
        """A snapshot is taken."""
        if self._terminals is not None:
            for session in self._terminals.list():
                session.rest()

    def wake(self) -> None:
        """It is over."""
        if self._terminals is not None:
            for session in self._terminals.list():
                session.wake()

    async def close(self) -> None:
        """End every terminal and watcher."""
        if self._watchers is not None:
            await self._watchers.close()
        if self._terminals is not None:
            await self._terminals.close()
