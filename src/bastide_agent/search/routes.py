"""The search endpoints (spec runtime 5.1-5.4)."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from bastide_agent.http.errors import ApiError, invalid, not_found
from bastide_agent.http.message import Request, Response, ok

if TYPE_CHECKING:
    from bastide_agent.http.fields import Fields
    from bastide_agent.http.router import Router
    from bastide_agent.runtime import Runtime

QUERY_LIMIT = 1000  # characters (spec)
RESULTS_LIMIT = 10_000
TIMEOUT_LIMIT = 60  # seconds (spec)
CONTEXT_LIMIT = 10  # lines (spec)


def register(router: Router, runtime: Runtime) -> None:
    """Serve `/files/search`, `/files/search/files` and `/files/search/init`."""
    del runtime

    async def content(request: Request) -> Response:
        from bastide_agent.search.content import ContentQuery, search  # noqa: PLC0415

        query = request.query
        path = query.path("path", "/")
        wanted = ContentQuery(
            text=question(query),
            path=path,
            is_file=not is_directory(path, file_allowed=True),
            case_sensitive=query.flag("case_sensitive"),
            regex=query.flag("regex"),
            whole_word=query.flag("whole_word"),
            max_results=query.integer("max_results", 100, 1, RESULTS_LIMIT),
            timeout=query.integer("timeout", 10, 1, TIMEOUT_LIMIT),
            context_lines=query.integer("context_lines", 0, 0, CONTEXT_LIMIT),
            extensions=query.commas("file_types"),
            hidden=query.flag("include_hidden"),
            gitignore=not query.flag("no_gitignore"),
            ignore=query.commas("ignore_patterns"),
        )
        found = await search(wanted)
        return ok(
            {
                "query": wanted.text,
                "path": path,
                "results": found.results,
                "total_matches": found.matches,
                "total_files": len(found.results),
                "capped": found.capped,
            }
        )

    async def names(request: Request) -> Response:
        from bastide_agent.search.names import find  # noqa: PLC0415
        from bastide_agent.threads import in_thread  # noqa: PLC0415

        query = request.query
        text, path = question(query), query.path("path", "/")
        is_directory(path, file_allowed=False)
        limit = query.integer("max_results", 200, 1, RESULTS_LIMIT)
        files, capped = await in_thread(
            find, path, text, limit,
            case_sensitive=query.flag("case_sensitive"),
            hidden=query.flag("include_hidden"),
            ignore=query.commas("ignore_patterns"),
        )  # fmt: skip
        total = len(files)
        return ok(
            {"query": text, "path": path, "files": files, "total_files": total, "capped": capped}
        )

    async def status(request: Request) -> Response:
        from bastide_agent.search.content import describe  # noqa: PLC0415

        del request
        return ok(await describe())

    router.add("GET", "/files/search", content)
    router.add("GET", "/files/search/files", names)
    router.add("GET", "/files/search/init", status)
    router.add("POST", "/files/search/init", status)


def question(query: Fields) -> str:
    """The text to look for: required, at most 1000 characters."""
    text = query.text("q", max_length=QUERY_LIMIT)
    if not text:
        raise invalid("q", f"q is required: what to look for, at most {QUERY_LIMIT} characters")
    if "\0" in text:
        raise invalid("q", "q must not hold a NUL byte")
    return text


def is_directory(path: str, *, file_allowed: bool) -> bool:
    """Whether the place to search is a directory.

    Raises:
        ApiError: 404 when it is not there, 400 when it cannot be searched.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  (pathlib is dear to import)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise not_found(f"there is nothing at {path!r}") from None
        raise invalid("path", f"path cannot be searched: {os.strerror(error.errno or 0)}") from None
    if stat.S_ISDIR(mode):
        return True
    if file_allowed and stat.S_ISREG(mode):
        return False
    allowed = "a directory or a file" if file_allowed else "a directory"
    raise ApiError(400, "validation_error", f"path must be {allowed}", {"field": "path"})
