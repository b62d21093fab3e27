"""Search by name: a walk that follows no links and stops when it has enough."""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Iterator

from bastide_agent.pattern import compiled

TIME_LIMIT = 10.0  # seconds for one walk
PSEUDO = frozenset(("proc", "sys", "dev", ".bastide"))  # below /: not files of the workspace


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


def walk(root: str, deadline: float, *, hidden: bool, ignore: list[str]) -> Iterator[str | None]:
    """The relative paths of everything that is no directory; None when the time is over."""
    ignored = ignoring(ignore)
    at_top = PSEUDO if os.path.samefile(root, "/") else frozenset()  # noqa: PTH121
    stack = [""]
    while stack:
        prefix = stack.pop()
        if time.monotonic() > deadline:
            yield None
            return
        try:
            with os.scandir(f"{root}/{prefix}") as entries:
                listing = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        folders: list[str] = []
        for entry in listing:
            name, path = entry.name, prefix + entry.name
            if (name[0] == "." and not hidden) or (not prefix and name in at_top):
                continue
            if ignored is not None and (ignored.match(name) or ignored.match(path)):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{path}/")
                    continue
            except OSError:
                continue
            yield path
        stack.extend(reversed(folders))


def ignoring(patterns: list[str]) -> re.Pattern[str] | None:
    """One expression for a list of globs, tried on the name and on the relative path."""
    if not patterns:
        return None
    cleaned = [pattern.strip("/") for pattern in patterns if pattern.strip("/")]
    return compiled("|".join(fnmatch.translate(pattern) for pattern in cleaned) or r"(?!)")
