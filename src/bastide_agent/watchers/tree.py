"""The directories of a watched tree and their inotify watches.

Everything below the root is hostile and may change while it is read: directories are opened one
name at a time and never through a symlink, and watched by descriptor before they are listed, so
that nothing is created unseen in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from bastide_agent.watchers.excludes import Excludes
from bastide_agent.watchers.inotify import Inotify

MAX_DIRS = 30_000  # directories watched at once, all watchers together (about 350 bytes each)
MAX_DEPTH = 64  # levels below the root; one descriptor each while a tree is listed
OWN_MOUNT = ".bastide"  # at the root of a workspace: this agent, never changing
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ROOM = (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class LimitError(Exception):
    """No more directories can be watched; the message says which limit was reached."""


class RootError(OSError):
    """The root is not there any more, or is something else now."""


class Node:
    """A watched directory."""

    __slots__ = ("children", "name", "parent", "watch")

    def __init__(self, parent: Node | None, name: bytes, watch: int) -> None:
        self.parent = parent
        self.name = name
        self.watch = watch
        self.children: dict[bytes, Node] | None = None

    def child(self, name: bytes) -> Node | None:
        """The watched directory of that name in this one."""
        return self.children.get(name) if self.children is not None else None

    def parts(self) -> list[bytes]:
        """The names from the root down to this one."""
        names: list[bytes] = []
        node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return names[::-1]


class Tree:
    """All directories below `root` that are not excluded.

    `room` says whether one more may be watched. The methods that touch the disk (`plant`,
    `replant`, `grow`) are for a worker thread, the others for the event loop; never both at once.
    """

    def __init__(
        self, root: str, excludes: Excludes, inotify: Inotify, room: Callable[[], bool]
    ) -> None:
        self.nodes: dict[int, Node] = {}
        self.root: Node | None = None
        self._path = os.fsencode(root)
        self._excludes = excludes
        self._inotify = inotify
        self._room = room
        self._identity: tuple[int, int] | None = None
        self._foreign: set[int] = set()
        self.stopped = False  # set by the event loop: give up the work under way

    # -- names

    def excluded(self, node: Node, name: bytes) -> bool:
        """Whether an entry of a directory is left out."""
        relative = b"".join(part + b"/" for part in node.parts())
        return self._excluded(os.fsdecode(name), os.fsdecode(relative))

    def _excluded(self, name: str, folder: str) -> bool:
        if name == OWN_MOUNT and not folder and self._path == b"/":
            return True
        return self._excludes.match(name, folder + name)

    def path(self, node: Node, name: bytes = b"") -> str:
        """The absolute path of a directory, or of an entry in it."""
        parts = (self._path.rstrip(b"/"), *node.parts(), *((name,) if name else ()))
        return os.fsdecode(b"/".join(parts) or b"/")

    # -- growing

    def plant(self) -> None:
        """Watch the root and all below it.

        Raises:
            OSError: the root cannot be opened.
            LimitError: not everything is watched.
        """
        try:
            fd = self._open_root()
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise LimitError(limit_text(error)) from None
            raise
        try:
            self._foreign = _kernel_file_systems() - {os.fstat(fd).st_dev}
            self.root = Node(None, b"", self._watch(fd))
            self.nodes[self.root.watch] = self.root
            for _ in self._walk(fd, self.root, report=False):
                pass
        finally:
            os.close(fd)

    def replant(self) -> None:
        """Begin anew after events were lost: keep the watches that still fit, drop the others.

        Raises:
            OSError: as `plant`.
            LimitError: as `plant`.
        """
        before = set(self.nodes)
        self.clear()
        try:
            self.plant()
        finally:
            self.unwatch(before - self.nodes.keys())

    def grow(self, parent: Node, name: bytes) -> Iterator[str]:
        """Watch a new directory and all below it; the paths of all that is found in it.

        Raises:
            RootError: the root is gone.
            LimitError: not everything is watched.
        """
        if self.nodes.get(parent.watch) is not parent:
            return
        parts = [*parent.parts(), name]
        try:
            fd = self._open_below(self._open_root(), parts)
        except RootError:
            raise
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise LimitError(limit_text(error)) from None
            return  # it is gone, or was swapped for something else: another event follows
        try:
            node = self._adopt(parent, name, fd)
            if node is not None:
                yield from self._walk(fd, node, report=True, depth=len(parts))
        finally:
            os.close(fd)

    def _open_root(self) -> int:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if self._identity is None or error.errno in _NO_ROOM:
                raise
            raise RootError(error.errno, error.strerror) from None
        status = os.fstat(fd)
        identity = (status.st_dev, status.st_ino)
        if self._identity is None:
            self._identity = identity
        elif self._identity != identity:
            os.close(fd)
            raise RootError(errno.ENOENT, "the root is another directory now")
        return fd

    @staticmethod
    def _open_below(fd: int, parts: list[bytes]) -> int:
        """Go down from an open directory, which this closes."""
        for name in parts:
            try:
                below = os.open(name, _OPEN, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _watch(self, fd: int) -> int:
        if not self._room():
            raise LimitError(
                f"{MAX_DIRS} directories are watched, the most the watchers of a workspace may have"
            )
        try:
            return self._inotify.add(fd)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise LimitError(limit_text(error)) from None
            raise

    def _adopt(self, parent: Node, name: bytes, fd: int) -> Node | None:
        """Watch an open directory; None when it is known here already or must not be watched."""
        if os.fstat(fd).st_dev in self._foreign:
            return None
        try:
            watch = self._watch(fd)
        except OSError:
            return None
        known = self.nodes.get(watch)
        if known is not None:
            if known.parent is parent and known.name == name:
                return None
            self._cut(known)  # it was moved here, and the event of that is still to come
        node = self.nodes[watch] = Node(parent, name, watch)
        if parent.children is None:
            parent.children = {}
        parent.children[name] = node
        return node

    def _walk(self, fd: int, node: Node, *, report: bool, depth: int = 0) -> Iterator[str]:
        """Watch what is below an open directory, depth first; with `report` every path in it."""
        if depth >= MAX_DEPTH:
            return
        relative = "".join(os.fsdecode(part) + "/" for part in node.parts())
        base = os.fsdecode(self._path).rstrip("/") + "/" + relative
        with contextlib.suppress(OSError), os.scandir(fd) as entries:
            for entry in entries:
                if self.stopped:
                    return
                below = self._open_entry(fd, entry)
                try:
                    if below is None and not report:
                        continue
                    if self._excluded(entry.name, relative):
                        continue
                    if report:
                        yield base + entry.name
                    child = self._adopt(node, os.fsencode(entry.name), below) if below else None
                    if child is not None and below is not None:
                        yield from self._walk(below, child, report=report, depth=depth + 1)
                finally:
                    if below is not None:
                        os.close(below)

    @staticmethod
    def _open_entry(fd: int, entry: os.DirEntry[str]) -> int | None:
        try:
            if entry.is_dir(follow_symlinks=False):
                return os.open(entry.name, _OPEN, dir_fd=fd)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise LimitError(limit_text(error)) from None
        return None

    # -- shrinking

    def _cut(self, node: Node) -> None:
        """Take a directory off its parent, not what is below it."""
        self.nodes.pop(node.watch, None)
        if node.parent is not None and node.parent.child(node.name) is node:
            assert node.parent.children is not None  # noqa: S101  (narrows the type)
            del node.parent.children[node.name]

    def ended(self, watch: int) -> bool:
        """The kernel ended a watch; True when it was the root's."""
        node = self.nodes.get(watch)
        if node is not None:
            self._cut(node)
        return node is not None and node is self.root

    def detach(self, parent: Node, name: bytes) -> list[int]:
        """A directory was moved away: forget it and all below; the watches to end."""
        top = parent.child(name)
        if top is None:
            return []
        self._cut(top)
        watches: list[int] = []
        stack = [top]
        while stack:
            node = stack.pop()
            self.nodes.pop(node.watch, None)
            watches.append(node.watch)
            stack.extend((node.children or {}).values())
            node.children = None
        return watches

    def clear(self) -> None:
        """Forget all directories, without leaving circles for the garbage collector."""
        nodes, self.nodes, self.root = self.nodes, {}, None
        for node in nodes.values():
            node.children = None

    def unwatch(self, watches: set[int] | list[int]) -> None:
        """End watches."""
        for watch in watches:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._inotify.remove(watch)


def limit_text(error: OSError) -> str:
    """Which limit of the kernel was reached."""
    if error.errno == errno.ENOSPC:
        return (
            "the kernel's limit of watched directories (fs.inotify.max_user_watches) is reached: "
            "watch a smaller tree, exclude more, or delete another watcher"
        )
    if error.errno == errno.ENOMEM:
        return "the workspace has no memory left for more watched directories"
    return (
        "the limit of open files or of inotify instances (fs.inotify.max_user_instances) is "
        "reached: delete another watcher, or stop a program that watches files"
    )


def _kernel_file_systems() -> set[int]:
    """The device numbers of what the kernel makes up: endless, and inotify is blind there."""
    found = set()
    for path in ("/proc", "/sys"):
        with contextlib.suppress(OSError):
            found.add(os.stat(path).st_dev)  # noqa: PTH116
    return found
