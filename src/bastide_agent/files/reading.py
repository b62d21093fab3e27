"""Reading text files, whole or by lines (spec runtime 4.3)."""

from __future__ import annotations

import os
import time

from bastide_agent.files.place import opened_file, read_all
from bastide_agent.http.errors import ApiError
from bastide_agent.limits import share_of_memory

BLOCK = 1 << 20
SCAN_SECONDS = 30.0  # for finding a line; some files of the kernel never end


def read_limit() -> int:
    """The most bytes of content in one answer: 16 MiB, less in a small workspace."""
    return share_of_memory(32, 16 * 1024 * 1024)


def too_large(path: str, limit: int) -> ApiError:
    """A 413 that says how to get at the file nevertheless."""
    message = (
        f"{path[:512]}: more than {limit} bytes; read a range of lines (start_line, end_line), "
        "or download it with /files/transfer/download"
    )
    return ApiError(413, "payload_too_large", message, {"limit_bytes": limit})


def too_far(path: str, line: int) -> ApiError:
    """A 504 for lines that cannot be found in time."""
    message = f"{path[:512]}: line {line} was not found within {SCAN_SECONDS:.0f} seconds"
    return ApiError(504, "timeout", message)


def count_lines(data: bytes) -> int:
    """Lines, of which the last may lack its newline."""
    return data.count(b"\n") + (not data.endswith(b"\n") if data else 0)


def numbered(text: str, first: int) -> str:
    """Each line after its number and a tab."""
    lines = text.split("\n")
    end = "" if lines[-1] else lines.pop()
    whole = "\n".join(f"{number}\t{line}" for number, line in enumerate(lines, first))
    return f"{whole}\n{end}" if text.endswith("\n") else whole


def read_small(path: str, most: int) -> tuple[bytes, int] | None:
    """The content and size of a file of 1 to `most` bytes; None for any other.

    Files of the kernel tell size 0 and may block: those are left to a thread.
    """
    with opened_file(path) as (fd, info):
        if not 0 < info.st_size <= most:
            return None
        try:
            data = read_all(fd, most)
        except OSError as error:
            raise unreadable(path, error) from None
        return None if data is None else (data, info.st_size)


def read_whole(path: str) -> tuple[bytes, int]:
    """The content and the size of a file.

    Raises:
        ApiError: 413 above the limit; 400, 403, 404.
    """
    limit = read_limit()
    with opened_file(path) as (fd, info):
        if info.st_size > limit:
            raise too_large(path, limit)
        try:
            data = read_all(fd, limit)
        except OSError as error:
            raise unreadable(path, error) from None
        if data is None:
            raise too_large(path, limit)
        return data, max(info.st_size, len(data))


def read_lines(path: str, first: int, last: int | None) -> tuple[bytes, int]:
    """The bytes of lines `first` to `last` (both included), and the size of the file.

    The file may be of any size; only the range is bounded.

    Raises:
        ApiError: 413 when the range is above the limit; 400, 403, 404; 504 when the lines are
            too far from the beginning to be found in time.
    """
    limit = read_limit()
    deadline = time.monotonic() + SCAN_SECONDS
    out: list[bytes] = []
    size = 0
    line = 1
    with opened_file(path) as (fd, info):
        try:
            while (last is None or line <= last) and (data := os.read(fd, BLOCK)):
                if time.monotonic() > deadline:
                    raise too_far(path, first)
                piece, line = _cut(data, line, first, last)
                size += len(piece)
                if size > limit:
                    raise too_large(path, limit)
                out.append(piece)
        except OSError as error:
            raise unreadable(path, error) from None
        return b"".join(out), info.st_size


def _cut(data: bytes, line: int, first: int, last: int | None) -> tuple[bytes, int]:
    """What of a block lies in the range, when it begins in `line`; the line behind it."""
    newlines = data.count(b"\n")
    end_line = line + newlines
    if end_line < first:
        return b"", end_line
    start = 0
    for _ in range(first - line):
        start = data.index(b"\n", start) + 1
    if last is None or end_line <= last:
        return data[start:], end_line
    stop = start
    for _ in range(last - max(line, first) + 1):
        stop = data.index(b"\n", stop) + 1
    return data[start:stop], last + 1


def unreadable(path: str, error: OSError) -> ApiError:
    """Some files of the kernel cannot be read."""
    text = f"{path[:512]}: cannot be read: {(error.strerror or 'error').lower()}"
    return ApiError(400, "validation_error", text, {"field": "path"})
