"""Search by name: a walk that follows no links and stops when it has enough."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import time
from collections.abc import Iterator

from bastide_agent.pattern import compiled
from bastide_agent.pseudo import pseudo_below

TIME_LIMIT = 10.0  # seconds for one walk
MAX_DEPTH = 256  # directories below each other; one descriptor each
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC


def find(
    root: str, text: str, limit: int, *, case_sensitive: bool, hidden: bool, ignore: list[str]
) -> tuple[list[str], bool]:
    """Files whose path relative to `root` holds `text`, in order of their paths.

    Returns:
        The relative paths, and whether there may be more than are told.
    """
    wanted = text if case_sensitive else text.lower()
    deadline = time.monotonic() + TIME_LIMIT
    found: list[str] = []
    for path in walk(root, deadline, hidden=hidden, ignore=ignore):
        if path is None:
            return found, True
        if wanted in (path if case_sensitive else path.lower()):
            if len(found) == limit:
                return found, True
            found.append(path)
    return found, False


class Filter:
    """What of a tree is looked at."""

    def __init__(self, root: str, *, hidden: bool, ignore: list[str]) -> None:
        self._hidden = hidden
        self._ignored = ignoring(ignore)
        self._top = pseudo_below(root)

    def keeps(self, prefix: str, name: str) -> bool:
        """Whether an entry of the directory `prefix` (with its slash, relative) counts."""
        if (name[0] == "." and not self._hidden) or (not prefix and name in self._top):
            return False
        return self._ignored is None or not (
            self._ignored.match(name) or self._ignored.match(prefix + name)
        )


def walk(root: str, deadline: float, *, hidden: bool, ignore: list[str]) -> Iterator[str | None]:
    """The relative paths of everything that is no directory; None when the time is over.

    Every directory is opened below the one before it and never through a link, whatever a
    program in the workspace swaps meanwhile. Below `MAX_DEPTH` directories nothing is looked at.
    """
    keeps = Filter(root, hidden=hidden, ignore=ignore).keeps
    open_directories: list[tuple[int, str, list[str]]] = []
    try:
        fd: int | None = os.open(root, DIRECTORY)
        prefix = ""
        while True:
            if fd is not None:
                folders: list[str] = []
                open_directories.append((fd, prefix, folders))
                if time.monotonic() > deadline:
                    yield None
                    return
                for name, is_folder in _entries(fd):
                    if not keeps(prefix, name):
                        continue
                    if is_folder:
                        folders.append(name)
                    else:
                        yield prefix + name
                folders.reverse()
            while open_directories and not open_directories[-1][2]:
                os.close(open_directories.pop()[0])
            if not open_directories:
                return
            above, outer, folders = open_directories[-1]
            name = folders.pop()
            prefix = f"{outer}{name}/"
            fd = _open(name, above) if len(open_directories) < MAX_DEPTH else None
    finally:
        for fd, _, _ in open_directories:
            os.close(fd)


def _entries(fd: int) -> list[tuple[str, bool]]:
    """Names in a directory and whether each is one itself, sorted; nothing when unreadable."""
    found: list[tuple[str, bool]] = []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found.append((entry.name, entry.is_dir(follow_symlinks=False)))
    except OSError:
        return []
    return sorted(found)


def _open(name: str, above: int) -> int | None:
    try:
        return os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except OSError:
        return None


def ignoring(patterns: list[str]) -> re.Pattern[str] | None:
    """One expression for a list of globs, tried on the name and on the relative path."""
    if not patterns:
        return None
    cleaned = [pattern.strip("/") for pattern in patterns if pattern.strip("/")]
    return compiled("|".join(fnmatch.translate(pattern) for pattern in cleaned) or r"(?!)")
