"""The watchers of a workspace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bastide_agent.http.errors import ApiError, invalid, not_found
from bastide_agent.watchers.excludes import Excludes
from bastide_agent.watchers.tree import MAX_DIRS, LimitError, RootError, limit_text
from bastide_agent.watchers.watcher import Watcher

if TYPE_CHECKING:
    from bastide_agent.live import Live

MAX_WATCHERS = 5  # spec runtime 9


class Watchers:
    """At most five. Ids count up from 1 and are not used again."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._watchers: dict[str, Watcher] = {}
        self._lock = asyncio.Lock()
        self._count = 0

    def list(self) -> Sequence[Watcher]:
        """All of them, oldest first."""
        return list(self._watchers.values())

    def get(self, name: str) -> Watcher:
        """The one with this id.

        Raises:
            ApiError: 404.
        """
        watcher = self._watchers.get(name)
        if watcher is None:
            raise not_found(f"there is no watcher {name[:64]!r}")
        return watcher

    def _room(self) -> bool:
        """Whether one more directory may be watched. Called from a worker thread."""
        return sum(len(watcher.tree.nodes) for watcher in self.list()) < MAX_DIRS

    async def create(self, root: str, own_excludes: Iterable[str]) -> Watcher:
        """Watch a directory and all below it; returns when all of it is watched.

        Raises:
            ApiError: 404 when it is not there, 400 when it is no directory, 403 when it cannot be
                read, 409 when there are five or a limit of directories is reached.
        """
        if len(self._watchers) >= MAX_WATCHERS:
            message = f"there are {MAX_WATCHERS} watchers, the most there may be: delete one"
            raise ApiError(409, "watcher_limit", message, {"limit": MAX_WATCHERS})
        self._count += 1
        name = str(self._count)
        excludes = Excludes(root, own_excludes)
        try:
            watcher = Watcher(
                name, root, excludes=excludes, live=self._live, lock=self._lock, room=self._room
            )
        except OSError as error:
            raise ApiError(409, "watch_limit", limit_text(error)) from None
        self._watchers[name] = watcher
        if self._live.attached:
            watcher.attach()
        try:
            await watcher.planted()
        except BaseException as error:
            del self._watchers[name]
            watcher.stop()
            if isinstance(error, LimitError):
                raise ApiError(409, "watch_limit", str(error), {"limit": MAX_DIRS}) from None
            if isinstance(error, OSError):
                raise unusable(root, error) from None
            raise
        return watcher

    async def remove(self, watcher: Watcher) -> None:
        """End one and forget it."""
        self._watchers.pop(watcher.name, None)
        await watcher.close()

    async def close(self) -> None:
        """End all of them."""
        await asyncio.gather(*(self.remove(watcher) for watcher in self.list()))


def unusable(root: str, error: OSError) -> ApiError:
    """The error for a root that cannot be watched."""
    if isinstance(error, (FileNotFoundError, RootError)):
        return not_found(f"there is no directory {root!r}")
    if isinstance(error, PermissionError):
        return ApiError(403, "forbidden", f"{root!r} may not be read")
    reason = "it is no directory" if isinstance(error, NotADirectoryError) else str(error.strerror)
    return invalid("path", f"{root!r} cannot be watched: {reason}")
