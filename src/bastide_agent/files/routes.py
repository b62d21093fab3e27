"""The endpoints below `/files` (spec runtime 4)."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bastide_agent.files import deleting, entry, reading, writing
from bastide_agent.files.errors import file_error
from bastide_agent.files.listing import Listing, Options, Stopped
from bastide_agent.files.place import opened_parent, tidy
from bastide_agent.http.errors import ClientGoneError, invalid
from bastide_agent.http.fields import Fields
from bastide_agent.http.message import JSON_LIMIT, Request, Response, ok, to_json
from bastide_agent.http.streams import Lines
from bastide_agent.limits import share_of_memory
from bastide_agent.threads import in_thread

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.runtime import Runtime

INLINE = 256 * 1024  # bytes of a file that are read or written without a thread
BATCH_BYTES = 64 * 1024
BATCH_SECONDS = 0.02
LAST_LINE = 2**53


def write_limit() -> int:
    """The largest body of a write: 64 MiB, less in a small workspace (it is JSON in memory)."""
    return share_of_memory(8, 64 * 1024 * 1024)


def register(router: Router, runtime: Runtime) -> None:
    """Serve the files."""
    del runtime
    files = Files()
    router.add("GET", "/files", files.list)
    router.add("GET", "/files/stream", files.stream)
    router.add("GET", "/files/read", files.read)
    router.add("POST", "/files/write", files.write)
    router.add("PUT", "/files/write", files.write)
    router.add("POST", "/files/mkdir", files.mkdir)
    router.add("GET", "/files/stat", files.stat)
    router.add("POST", "/files/delete", files.delete)
    router.add("DELETE", "/files/delete", files.delete)


class Files:
    """Handlers over the file system."""

    def __init__(self) -> None:
        self._bodies = asyncio.Semaphore(1)  # large ones are held in memory
        self._listings = asyncio.Semaphore(4)

    async def list(self, request: Request) -> Response:
        """Entries of a directory, sorted by name; see `Options`."""
        options = Options(request.query)
        options.budget = min(options.budget, share_of_memory(32, options.budget))
        async with self._listings:
            try:
                return Response(200, await in_thread(Listing(options).document))
            finally:
                options.stopped = True

    async def stream(self, request: Request) -> None:
        """All entries below a directory as lines, as the walk finds them."""
        options = Options(request.query)
        options.nested = options.flatten = True
        listing = Listing(options)
        entries = listing.entries(ordered=False, tree=False)
        try:
            batch = await in_thread(_batch, entries)
            lines = await Lines.open(request)
            await lines.write(to_json({"event": "start", "path": options.path}) + b"\n")
            while batch:
                await lines.write(batch)
                batch = await in_thread(_batch, entries)
            done: dict[str, object] = {"event": "done", "count": listing.count}
            if listing.truncated:
                done["truncated"] = True
            await lines.send(done)
        finally:
            options.stopped = True

    async def read(self, request: Request) -> Response:
        """The text of a file, whole or a range of lines."""
        query = request.query
        path = query.path("path")
        ranged = "start_line" in query or "end_line" in query
        first = query.integer("start_line", 1, 1, LAST_LINE)
        last = query.integer("end_line", 0, 1, LAST_LINE) if "end_line" in query else None
        with_numbers = query.flag("with_line_numbers")
        if last is not None and last < first:
            raise invalid("end_line", "end_line must not be smaller than start_line")
        if ranged:
            data, size = await in_thread(reading.read_lines, path, first, last)
        else:
            data, size = await self._read_whole(path)
        lines = reading.count_lines(data)
        text = data.decode("utf-8", "replace")
        answer: dict[str, object] = {
            "path": path,
            "content": reading.numbered(text, first) if with_numbers else text,
            "size": size,
            "lines": lines,
        }
        if ending := entry.extension(path.rsplit("/", 1)[1]):
            answer["extension"] = ending
        if ranged:
            answer["start_line"] = first
            answer["end_line"] = first + lines - 1 if lines else last or first
        return ok(answer)

    async def _read_whole(self, path: str) -> tuple[bytes, int]:
        small = reading.read_small(path, INLINE)
        if small is not None:
            return small
        return await in_thread(reading.read_whole, path)

    async def write(self, request: Request) -> Response:
        """Replace a file in one step, or append to it."""
        length = request.body.length
        if length is not None and length <= JSON_LIMIT:
            return await self._write(await request.fields(JSON_LIMIT))
        async with self._bodies:
            return await self._write(await request.fields(write_limit()))

    async def _write(self, fields: Fields) -> Response:
        path = fields.path("path")
        data = writing.content_bytes(fields.raw("content"))
        mode = fields.mode("mode", 0) if "mode" in fields else None
        create_dirs = fields.flag("create_dirs")
        action = writing.append_file if fields.flag("append") else writing.replace_file
        if len(data) <= INLINE:
            size = action(path, data, mode=mode, create_dirs=create_dirs)
        else:
            size = await in_thread(action, path, data, mode=mode, create_dirs=create_dirs)
        return ok({"path": path, "size": size}, 201)

    async def mkdir(self, request: Request) -> Response:
        """Make a directory with its parents."""
        fields = await request.fields()
        path = fields.path("path")
        writing.make_directories(path, fields.mode("mode", writing.NEW_DIRECTORY))
        return ok({"path": path}, 201)

    async def stat(self, request: Request) -> Response:
        """What an entry is; a link is not followed."""
        path = request.query.path("path")
        with opened_parent(path) as (dir_fd, name):
            try:
                info = os.lstat(name, dir_fd=dir_fd) if name else os.fstat(dir_fd)
                is_link = stat.S_ISLNK(info.st_mode)
                link = os.readlink(name, dir_fd=dir_fd) if is_link else None
            except OSError as error:
                raise file_error(error, path) from None
        answer: dict[str, object] = {
            "path": path,
            "name": name or "/",
            "type": entry.kind(info.st_mode),
            "size": entry.size_of(info),
            "modified": entry.modified(int(info.st_mtime)),
            "permissions": f"{stat.S_IMODE(info.st_mode):04o}",
            "is_code": stat.S_ISREG(info.st_mode) and entry.is_code(name),
        }
        if not stat.S_ISDIR(info.st_mode) and (ending := entry.extension(name)):
            answer["extension"] = ending
        if link is not None:
            answer["symlink_target"] = link
        return ok(answer)

    async def delete(self, request: Request) -> Response:
        """Delete recursively; the path may be in the query or in the body."""
        source = request.query if "path" in request.query else await request.fields()
        path = source.path("path")
        await in_thread(deleting.delete, path)
        return ok({"path": tidy(path)})


def _batch(entries: Iterator[str]) -> bytes:
    """The next lines of a walk: so many, or what comes in a fiftieth of a second."""
    out = bytearray()
    end = time.monotonic() + BATCH_SECONDS
    try:
        for piece in entries:
            out += piece.encode("ascii") + b"\n"
            if len(out) > BATCH_BYTES or time.monotonic() > end:
                break
    except Stopped:
        raise ClientGoneError("the client left") from None
    return bytes(out)
