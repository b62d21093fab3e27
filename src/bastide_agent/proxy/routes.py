"""`/proxy`: every method, every path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bastide_agent.http.message import Request, Response
    from bastide_agent.http.router import Router
    from bastide_agent.runtime import Runtime


def register(router: Router, runtime: Runtime) -> None:
    """Serve `/proxy` and everything below it."""
    del runtime

    async def proxy(request: Request) -> Response | None:
        from bastide_agent.proxy.forward import forward  # noqa: PLC0415
        from bastide_agent.proxy.target import find_target  # noqa: PLC0415

        await forward(request, find_target(request))
        return None

    router.add_prefix("/proxy", proxy)
