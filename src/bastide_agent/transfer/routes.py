"""`POST /files/transfer/download` and `…/upload` (spec runtime 10), and the control plane's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from bastide_agent.http.fields import Fields
from bastide_agent.http.message import Request, Response, ok, plain

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.runtime import Runtime
    from bastide_agent.transfer.relay import Transfers

MAX_PATHS = 1000
MAX_EXCLUDES = 100
EXCLUDE_LENGTH = 256  # characters
PATH_LENGTH = 4096  # characters


def register(router: Router, runtime: Runtime) -> None:
    """Serve the two transfers."""
    del runtime
    transfers = _transfers()

    async def download(request: Request) -> None:
        from bastide_agent.transfer.pack import (  # noqa: PLC0415
            Packer,
            excluding,
            find_roots,
        )
        from bastide_agent.transfer.relay import Outlet  # noqa: PLC0415

        fields = await request.fields()
        paths = absolute_paths(fields)
        excludes = fields.strings(
            "exclude_patterns", max_items=MAX_EXCLUDES, max_length=EXCLUDE_LENGTH
        )
        outlet = Outlet(asyncio.get_running_loop(), request)

        def work() -> None:
            roots = find_roots(paths)
            packer = Packer(outlet.write, excluding(excludes))
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


def register_backup(router: Router) -> None:
    """Serve backups to the control plane (docs/architecture.md, control port)."""
    transfers = _transfers()

    async def archive(request: Request) -> None:
        from bastide_agent.transfer.backup import pack, roots_of  # noqa: PLC0415
        from bastide_agent.transfer.relay import Outlet  # noqa: PLC0415

        fields = await request.fields()
        paths = absolute_paths(fields)
        excludes = fields.strings("excludes", max_items=MAX_PATHS, max_length=PATH_LENGTH)
        outlet = Outlet(asyncio.get_running_loop(), request)

        def work() -> None:
            roots = roots_of(paths)
            outlet.open("application/x-tar")
            pack(outlet.write, roots, excludes)
            outlet.flush()

        await transfers().run(work)

    async def unpack(request: Request) -> Response:
        from bastide_agent.transfer.backup import restore  # noqa: PLC0415
        from bastide_agent.transfer.relay import Inlet  # noqa: PLC0415

        dest = request.query.path("dest", "/")
        inlet = Inlet(asyncio.get_running_loop(), request.body)

        def work() -> int:
            try:
                return restore(inlet.read, dest)
            finally:
                inlet.close()

        return plain({"files_extracted": await transfers().run(work)})

    router.add("POST", "/control/archive", archive)
    router.add("POST", "/control/unpack", unpack)


def _transfers() -> Callable[[], Transfers]:
    """The transfers of one port, made when the first one begins."""
    shared: list[Transfers] = []

    def transfers() -> Transfers:
        if not shared:
            from bastide_agent.transfer.relay import Transfers  # noqa: PLC0415  (when needed)

            shared.append(Transfers())
        return shared[0]

    return transfers


def absolute_paths(fields: Fields) -> list[str]:
    """The paths to download.

    Raises:
        ApiError: 400 when one is missing, not absolute or too long.
    """
    paths = fields.strings("paths", max_items=MAX_PATHS, required=True)
    return [Fields({"paths": path}).path("paths") for path in paths]
