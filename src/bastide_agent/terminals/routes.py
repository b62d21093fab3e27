"""`/terminals` (spec runtime 7)."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from bastide_agent.clock import timestamp
from bastide_agent.http.message import Request, Response, ok

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.live import Live
    from bastide_agent.terminals.session import Session

COLUMNS, ROWS = 80, 24
MAX_SIDE = 1000  # columns or rows
SCROLLBACK = 64 * 1024
MAX_SCROLLBACK = 256 * 1024
MAX_COUNT = 2**53 - 1  # the largest whole number every JSON client can say


def register(router: Router, live: Live) -> None:
    """Serve the terminals and their scrollback."""

    async def create(request: Request) -> Response:
        fields = await request.fields()
        command = fields.strings(fields.any_of("cmd", "command"))
        size = (
            fields.integer("cols", COLUMNS, 1, MAX_SIDE),
            fields.integer("rows", ROWS, 1, MAX_SIDE),
        )
        limit = fields.integer("scrollback_size", SCROLLBACK, 0, MAX_SCROLLBACK) or SCROLLBACK
        return ok(describe(live.terminals.create(command, size, limit)), 201)

    async def listing(request: Request) -> Response:
        del request
        return ok({"terminals": [describe(session) for session in live.terminals.list()]})

    async def show(request: Request) -> Response:
        return ok(describe(live.terminals.get(request.params["id"])))

    async def delete(request: Request) -> Response:
        session = live.terminals.get(request.params["id"])
        await live.terminals.remove(session)
        return ok({"terminal_id": str(session.number)})

    async def scrollback(request: Request) -> Response:
        session = live.terminals.get(request.params["id"])
        data = session.output.scrollback(request.query.integer("bytes", MAX_COUNT, 0, MAX_COUNT))
        return ok(
            {
                "terminal_id": str(session.number),
                "scrollback": binascii.b2a_base64(data, newline=False).decode("ascii"),
                "size": len(data),
                "alive": session.exit_code is None,
                "exit_code": session.exit_code or 0,
                "scrollback_size": session.output.limit,
                "max_scrollback_size": MAX_SCROLLBACK,
            }
        )

    async def set_scrollback(request: Request) -> Response:
        session = live.terminals.get(request.params["id"])
        fields = await request.fields()
        given = fields.integer("scrollback_size", 0, 0, MAX_SCROLLBACK)
        session.output.limit = given or SCROLLBACK
        return ok(scrollback_size(session))

    async def clear_scrollback(request: Request) -> Response:
        session = live.terminals.get(request.params["id"])
        session.output.clear()
        return ok(scrollback_size(session))

    router.add("POST", "/terminals", create)
    router.add("GET", "/terminals", listing)
    router.add("GET", "/terminals/:id", show)
    router.add("DELETE", "/terminals/:id", delete)
    router.add("GET", "/terminals/:id/scrollback", scrollback)
    router.add("PATCH", "/terminals/:id/scrollback", set_scrollback)
    router.add("DELETE", "/terminals/:id/scrollback", clear_scrollback)


def scrollback_size(session: Session) -> dict[str, object]:
    """The answer to a change of the scrollback."""
    return {"terminal_id": str(session.number), "scrollback_size": session.output.limit}


def describe(session: Session) -> dict[str, object]:
    """A terminal as clients see it; `exit_code` is 0 while it runs."""
    return {
        "id": str(session.number),
        "command": session.command,
        "cols": session.cols,
        "rows": session.rows,
        "alive": session.exit_code is None,
        "exit_code": session.exit_code or 0,
        "created_at": timestamp(session.created_at),
        "scrollback_size": session.output.limit,
    }
