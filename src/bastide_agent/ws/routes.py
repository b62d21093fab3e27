"""`/ws` (spec runtime 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bastide_agent.http.message import Request
    from bastide_agent.http.router import Router
    from bastide_agent.live import Live


def register(router: Router, live: Live) -> None:
    """Serve the WebSocket."""

    async def connect(request: Request) -> None:
        from bastide_agent.http.websocket import WebSocket  # noqa: PLC0415  (when needed)

        await live.connect(await WebSocket.accept(request))

    router.add("GET", "/ws", connect)
