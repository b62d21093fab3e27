"""`POST /files/transfer/download` and `POST /files/transfer/upload` (spec runtime 10)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bastide_agent.http.fields import Fields
from bastide_agent.http.message import Request, Response, ok

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.runtime import Runtime
    from bastide_agent.transfer.relay import Transfers

MAX_PATHS = 1000
MAX_EXCLUDES = 100
EXCLUDE_LENGTH = 256  # characters


def register(router: Router, runtime: Runtime) -> None:
    """Serve the two transfers."""
    del runtime
    shared: list[Transfers] = []

    def transfers() -> Transfers:
        if not shared:
            from bastide_agent.transfer.relay import Transfers  # noqa: PLC0415  (when needed)

            shared.append(Transfers())
        return shared[0]

    async def download(request: Request) -> None:
        from bastide_agent.transfer.pack import Packer, find_roots  # noqa: PLC0415
        from bastide_agent.transfer.relay import Outlet  # noqa: PLC0415

        fields = await request.fields()
        paths = absolute_paths(fields)
        excludes = fields.strings(
            "exclude_patterns", max_items=MAX_EXCLUDES, max_length=EXCLUDE_LENGTH
        )
        outlet = Outlet(asyncio.get_running_loop(), request)

        def work() -> None:
            roots = find_roots(paths)
            packer = Packer(outlet.write, excludes)
            outlet.open("application/gzip")
            packer.pack(roots)
            outlet.flush()

        await transfers().run(work)

    async def upload(request: Request) -> Response:
        from bastide_agent.transfer.relay import Inlet  # noqa: PLC0415
        from bastide_agent.transfer.unpack import unpack  # noqa: PLC0415

        dest = request.query.path("dest", "/")
        keep_owner = request.query.flag("preserve_owner")
        inlet = Inlet(asyncio.get_running_loop(), request.body)

        def work() -> int:
            try:
                return unpack(inlet.read, dest, keep_owner=keep_owner)
            finally:
                inlet.close()

        count = await transfers().run(work)
        return ok({"dest": dest, "files_extracted": count})

    router.add("POST", "/files/transfer/download", download)
    router.add("POST", "/files/transfer/upload", upload)


def absolute_paths(fields: Fields) -> list[str]:
    """The paths to download.

    Raises:
        ApiError: 400 when one is missing, not absolute or too long.
    """
    paths = fields.strings("paths", max_items=MAX_PATHS, required=True)
    return [Fields({"paths": path}).path("paths") for path in paths]
