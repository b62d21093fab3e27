"""One watcher: the events of a tree, made into changes for the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from bastide_agent.http.message import to_json
from bastide_agent.threads import in_thread
from bastide_agent.watchers import inotify as kernel
from bastide_agent.watchers.changes import LIMIT, Changes
from bastide_agent.watchers.inotify import Event, Inotify
from bastide_agent.watchers.tree import LimitError, Node, Tree

if TYPE_CHECKING:
    from bastide_agent.live import Live
    from bastide_agent.watchers.excludes import Excludes

P = ParamSpec("P")
T = TypeVar("T")
OVERFLOW_TEXT = "Event queue overflow, some events may have been lost"


class Watcher:
    """Watches until it is closed or its root is gone. `lock` lets one tree be read at a time.

    `active` is False before the tree has been read and after its root is gone; `notice` says why
    not everything is watched.
    """

    def __init__(
        self, name: str, root: str, *, excludes: Excludes, live: Live, lock: asyncio.Lock,
        room: Callable[[], bool],
    ) -> None:  # fmt: skip
        """Begin to read the tree.

        Raises:
            OSError: the kernel gives no inotify instance.
        """
        self.name = name
        self.root = root
        self.excludes = excludes
        self.active = False
        self.notice: str | None = None
        self._live = live
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._inotify = Inotify()
        self.tree = Tree(root, excludes, self._inotify, room)
        self._changes = Changes(self._loop.time)
        self._timer: asyncio.TimerHandle | None = None
        self._attached = False
        self._ready_owed = False
        self._notice_owed = False
        self._overflowed = False
        self._fresh: list[tuple[Node, bytes]] = []
        self._ended: list[int] = []
        self._news = asyncio.Event()
        self._planted: asyncio.Future[None] = self._loop.create_future()
        self._planted.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._task = self._loop.create_task(self._run())

    @property
    def dirs(self) -> int:
        """How many directories are watched."""
        return len(self.tree.nodes) if self.active else 0

    async def planted(self) -> None:
        """Wait until the whole tree is watched.

        Raises:
            OSError: the root cannot be watched.
            LimitError: the tree is too large.
        """
        await asyncio.shield(self._planted)

    def stop(self) -> None:
        """End it soon."""
        self.tree.stopped = True
        self._news.set()

    async def close(self) -> None:
        """End it."""
        self.stop()
        await asyncio.shield(self._task)

    # -- the tree

    async def _run(self) -> None:
        try:
            try:
                await self._on_disk(self.tree.plant)
            except (OSError, LimitError) as error:
                self._planted.set_exception(error)
                return
            self.active = True
            self._planted.set_result(None)
            self._live.changed()
            while not self.tree.stopped:
                await self._readable()
                for event in self._inotify.read():
                    self._handle(event)
                await self._settle()
                self._arm()
        finally:
            self.active = False
            self.tree.clear()
            self._inotify.close()

    async def _on_disk(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._lock:
            return await in_thread(function, *args, **kwargs)

    async def _readable(self) -> None:
        self._news.clear()
        self._loop.add_reader(self._inotify.fd, self._news.set)
        try:
            if not self.tree.stopped:
                await self._news.wait()
        finally:
            self._loop.remove_reader(self._inotify.fd)

    def _handle(self, event: Event) -> None:
        mask = event.mask
        if mask & kernel.OVERFLOW:
            self._overflowed = True
            return
        node = self.tree.nodes.get(event.watch)
        if node is None or self.tree.stopped:
            return
        if not event.name:
            if mask & kernel.IGNORED and self.tree.ended(event.watch):
                self._root_gone("remove")
            elif node is self.tree.root and mask & (kernel.DELETE_SELF | kernel.MOVE_SELF):
                self._root_gone("rename" if mask & kernel.MOVE_SELF else "remove")
            return
        if self.tree.excluded(node, event.name):
            return
        if mask & kernel.ISDIR:
            if mask & (kernel.CREATE | kernel.MOVED_TO):
                self._fresh.append((node, event.name))
            elif mask & kernel.MOVED_FROM:
                self._ended += self.tree.detach(node, event.name)
        self._changes.add(self.tree.path(node, event.name), operation(mask))

    async def _settle(self) -> None:
        """Bring the watches in line with what the events said about directories."""
        fresh, self._fresh = self._fresh, []
        ended, self._ended = self._ended, []
        found: list[str] = []
        try:
            if self._overflowed and not self.tree.stopped:
                self._overflowed = False
                self._changes.lost = True
                await self._on_disk(self.tree.replant)
                self.notice = None
            elif fresh or ended:
                await self._on_disk(self._follow, fresh, ended, found)
        except LimitError as error:
            self._limited(str(error))
        except OSError:
            self._root_gone("remove")
        for path in found:
            self._changes.add(path, "create")
        if self._changes.lost:
            self._live.changed()

    def _follow(self, fresh: list[tuple[Node, bytes]], ended: list[int], found: list[str]) -> None:
        self.tree.unwatch(ended)
        for parent, name in fresh:
            for path in self.tree.grow(parent, name):
                if len(found) <= LIMIT:  # one more than could be told, so that it is noticed
                    found.append(path)

    def _limited(self, text: str) -> None:
        if self.notice is None:
            self.notice = text
            self._notice_owed = True
            self._live.changed()

    def _root_gone(self, how: str) -> None:
        self._changes.add(self.root, how)
        self.tree.stopped = True

    # -- the live connection

    def attach(self) -> None:
        """A client came: it is told that the watcher is ready."""
        self._attached = True
        self._ready_owed = True
        self._notice_owed = self.notice is not None

    def detach(self) -> None:
        """The client is gone: changes are told to nobody."""
        self._attached = False
        self._arm()

    def next_frame(self) -> str | None:
        """The next message for the connection; None when there is none now."""
        if not self._attached:
            return None
        if self._ready_owed and self.active:
            self._ready_owed = False
            return self._frame("ready", root=self.root, dirs=self.dirs)
        change = self._changes.take()
        if change is not None:
            return self._frame("change", path=change[0], op=change[1])
        if self._changes.lost:
            self._changes.lost = False
            return self._frame("overflow", message=OVERFLOW_TEXT)
        if self._notice_owed:
            self._notice_owed = False
            return self._frame("overflow", message=f"Not everything is watched: {self.notice}")
        self._arm()
        return None

    def _frame(self, kind: str, **values: object) -> str:
        head = {"channel": "watcher", "type": kind, "watcher_id": self.name}
        return to_json({**head, **values}).decode("ascii")

    def _arm(self) -> None:
        """Set the timer for what is due next."""
        due_at = self._changes.due_at
        if self._timer is None and due_at is not None:
            self._timer = self._loop.call_at(due_at, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._attached:
            self._live.changed()  # a stalled client gets it when it reads on
            return
        while self._changes.take() is not None:
            pass
        self._changes.lost = False
        self._arm()


def operation(mask: int) -> str:
    """The name of what happened (spec runtime 9)."""
    if mask & (kernel.CREATE | kernel.MOVED_TO):
        return "create"
    if mask & kernel.DELETE:
        return "remove"
    if mask & kernel.MOVED_FROM:
        return "rename"
    return "write" if mask & kernel.MODIFY else "unknown"
