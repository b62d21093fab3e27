"""`GET /openapi.json`: read when it is asked for, and not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bastide_agent.http.message import Request, Response, plain

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.runtime import Runtime


def register(router: Router, runtime: Runtime) -> None:
    """Serve the document."""
    del runtime

    async def openapi(request: Request) -> Response:
        from bastide_agent.openapi.document import read_document  # noqa: PLC0415
        from bastide_agent.threads import in_thread  # noqa: PLC0415

        del request
        return plain(await in_thread(read_document))

    router.add("GET", "/openapi.json", openapi)
