"""`/watchers` (spec runtime 9)."""

from __future__ import annotations

from posixpath import normpath
from typing import TYPE_CHECKING

from bastide_agent.http.message import Request, Response, ok

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.live import Live
    from bastide_agent.watchers.watcher import Watcher

MAX_EXCLUDES = 100
MAX_GLOB = 256  # characters


def register(router: Router, live: Live) -> None:
    """Serve the watchers."""

    async def create(request: Request) -> Response:
        fields = await request.fields()
        root = fields.path(fields.any_of("path", "root"))
        own = fields.strings(
            fields.any_of("excludes", "exclude"), max_items=MAX_EXCLUDES, max_length=MAX_GLOB
        )
        watcher = await live.watchers.create("/" + normpath(root).lstrip("/"), own)
        return answer(watcher, 201)

    async def listing(request: Request) -> Response:
        del request
        return ok({"watchers": [describe(watcher) for watcher in live.watchers.list()]})

    async def show(request: Request) -> Response:
        return answer(live.watchers.get(request.params["id"]))

    async def delete(request: Request) -> Response:
        watcher = live.watchers.get(request.params["id"])
        await live.watchers.remove(watcher)
        return ok({"watcher_id": watcher.name})

    router.add("POST", "/watchers", create)
    router.add("GET", "/watchers", listing)
    router.add("GET", "/watchers/:id", show)
    router.add("DELETE", "/watchers/:id", delete)


def answer(watcher: Watcher, status: int = 200) -> Response:
    """Both spellings clients expect: the bare fields, and the same under `watcher`."""
    values = describe(watcher)
    return ok({**values, "watcher": values}, status)


def describe(watcher: Watcher) -> dict[str, object]:
    """A watcher as clients see it; `complete` is false, with `notice`, when a limit was hit."""
    values: dict[str, object] = {
        "id": watcher.name,
        "root": watcher.root,
        "dirs": watcher.dirs,
        "dir_count": watcher.dirs,
        "excludes": watcher.excludes.globs,
        "active": watcher.active,
        "complete": watcher.notice is None,
    }
    return values if watcher.notice is None else {**values, "notice": watcher.notice}
