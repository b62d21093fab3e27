"""Content search: one ripgrep process a request, its lines read as they come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass, field

from bastide_agent.http.errors import ApiError, invalid
from bastide_agent.process import Places, SpawnError, find_program, spawn, wait
from bastide_agent.pseudo import pseudo_below

LINE_BYTES = 2000  # longer lines are cut by ripgrep
OUTPUT_BYTES = 8 * 1024 * 1024  # what one answer may hold
ERROR_BYTES = 4096

Match = dict[str, int | str]


@dataclass(frozen=True)
class ContentQuery:
    """What to look for, and where; `timeout` in seconds."""

    text: str
    path: str
    is_file: bool
    case_sensitive: bool
    regex: bool
    whole_word: bool
    max_results: int
    timeout: int
    context_lines: int
    extensions: list[str]
    hidden: bool
    gitignore: bool
    ignore: list[str]


@dataclass
class Found:
    """Lines by file. `matches` counts matching lines, `capped` tells that there are more."""

    results: dict[str, list[Match]] = field(default_factory=dict)
    matches: int = 0
    capped: bool = False


def ripgrep() -> str:
    """The ripgrep of the bundle (beside our Python), else the one on the PATH.

    Raises:
        ApiError: 503, there is none.
    """
    own = f"{os.path.dirname(sys.executable)}/rg"  # noqa: PTH120
    if os.access(own, os.X_OK):
        return own
    try:
        return find_program("rg", os.environ)
    except SpawnError:
        message = "this workspace's agent was built without ripgrep: build the bundle again"
        raise ApiError(503, "search_unavailable", message) from None


async def describe() -> dict[str, object]:
    """Where ripgrep is and which version: it comes with the agent, nothing is installed."""
    program = ripgrep()
    out, into = os.pipe()
    with open(out, "rb", buffering=0) as stream:  # noqa: ASYNC230, PTH123  (a pipe, a few bytes)
        try:
            pid = spawn([program, "--version"], _places("/"), (_null(), into, _null()))
        except SpawnError as error:
            raise ApiError(503, "resource_exhausted", str(error)) from None
        finally:
            os.close(into)
        await wait(pid)
        version = stream.read(4096).split(b"\n")[0].decode("ascii", "replace")
    return {"installed": True, "path": program, "version": version}


def glob_literal(text: str) -> str:
    """A glob that matches exactly this text."""
    return "".join(f"[{char}]" if char in "*?[{\\!" and char != "\\" else
                   "\\\\" if char == "\\" else char for char in text)  # fmt: skip


def arguments(query: ContentQuery) -> list[str]:
    """Ripgrep's arguments: every option mapped, the query never taken for one."""
    argv = ["--no-config", "--color=never", "--no-heading", "--with-filename", "--null"]
    argv += ["--line-number", "--column", "--no-messages", "--no-context-separator"]
    argv += [f"--max-columns={LINE_BYTES}", "--max-columns-preview", "--sort=none"]
    argv += ["--case-sensitive" if query.case_sensitive else "--ignore-case"]
    argv += ["--fixed-strings"] * (not query.regex)
    argv += ["--word-regexp"] * query.whole_word
    argv += ["--hidden"] * query.hidden
    argv += ["--no-require-git"] if query.gitignore else ["--no-ignore"]
    argv += [f"--context={query.context_lines}"] * (query.context_lines > 0)
    for extension in query.extensions:
        argv += ["--glob", f"*.{glob_literal(extension.removeprefix('.'))}"]
    for pattern in query.ignore:
        argv += ["--glob", f"!{pattern}"]
    if not query.is_file:
        for name in pseudo_below(query.path):
            argv += ["--glob", f"!/{name}"]
    target = f"./{os.path.basename(query.path)}" if query.is_file else "./"  # noqa: PTH119
    return [*argv, f"--regexp={query.text}", "--", target]


async def search(query: ContentQuery) -> Found:
    """Run the search.

    Raises:
        ApiError: 400 for a wrong expression or glob, 504 when the time is over.
    """
    folder = os.path.dirname(query.path) if query.is_file else query.path  # noqa: PTH120
    argv = [ripgrep(), *arguments(query)]
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    try:
        pid = spawn(argv, _places(folder or "/"), (_null(), out_end, err_end))
    except SpawnError as error:
        os.close(out)
        os.close(err)
        raise ApiError(503, "resource_exhausted", str(error)) from None
    finally:
        os.close(out_end)
        os.close(err_end)
    found = Found()
    lines, lines_transport = await _reader(out)
    errors, errors_transport = await _reader(err)
    ending = asyncio.ensure_future(wait(pid))
    try:
        async with asyncio.timeout(query.timeout):
            complaining = asyncio.ensure_future(_head(errors))
            await _collect(query, lines, found)
            if found.capped:
                _kill(pid)
            complaint = await complaining
            code = await asyncio.shield(ending)
    except TimeoutError:
        message = f"the search took longer than {query.timeout} s: narrow path or raise timeout"
        raise ApiError(504, "timeout", message) from None
    finally:
        lines_transport.close()
        errors_transport.close()
        if not ending.done():
            _kill(pid)
            await asyncio.shield(ending)
    if code == 2 and complaint and not found.matches:
        told = complaint.decode("utf-8", "replace").strip()
        about = "ignore_patterns" if "glob" in told else "q"
        raise invalid(about, f"{about} cannot be searched for: {told}")
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def _reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=65536, loop=loop)
    pipe = os.fdopen(fd, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader, transport


async def _head(stream: asyncio.StreamReader) -> bytes:
    """The first bytes of a stream, read to its end so that its writer never waits."""
    kept = b""
    while data := await stream.read(4096):
        kept = (kept + data)[:ERROR_BYTES]
    return kept


async def _collect(query: ContentQuery, stream: asyncio.StreamReader, found: Found) -> None:
    """Turn `name NUL line:column:text` and `name NUL line-text` (context) into results."""
    size = 0
    rest = b""
    while data := await stream.read(65536):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            name, zero, said = line.partition(b"\0")
            match = _parse(said) if zero else None
            if match is None:
                continue
            if "column" in match and found.matches == query.max_results:
                found.capped = True
                return
            size += len(line)
            if size > OUTPUT_BYTES:
                found.capped = True
                return
            found.matches += "column" in match
            key = os.fsdecode(name.removeprefix(b"./"))
            found.results.setdefault(key, []).append(match)


def _parse(said: bytes) -> Match | None:
    """A match has a column, a line of context has none."""
    digits = len(said) - len(said.lstrip(b"0123456789"))
    number, sign, rest = said[:digits], said[digits : digits + 1], said[digits + 1 :]
    if not number:
        return None
    if sign == b"-":
        return {"line": int(number), "text": rest.decode("utf-8", "replace")}
    column, colon, text = rest.partition(b":")
    if sign != b":" or not colon or not column.isdigit():
        return None
    return {"line": int(number), "column": int(column), "text": text.decode("utf-8", "replace")}


def _places(folder: str) -> Places:
    return Places({"PATH": "/nonexistent", "HOME": "/", "LANG": "C.UTF-8"}, folder)


def _null() -> int:
    global _null_fd  # noqa: PLW0603  (one descriptor for the life of the agent)
    if _null_fd < 0:
        _null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    return _null_fd


_null_fd = -1
