"""Layers of an image applied to a tree, one over the other (OCI image layers).

A layer is a tar archive of a stranger, and this is done as root. So it is done inside the tree
(chroot): whatever a name or a symbolic link says, the kernel resolves it there. What a workspace
cannot have is left out and counted: devices, and attributes that would mean something to the
host's overlay. Sizes and numbers are bounded while reading, whatever the headers say.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bastide.node.errors import ImageRefused, NodeError, NoSpace
from bastide.node.images.tape import Budget, Source, Tape

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_CHUNK = 256 * 1024
_MOST_DEPTH = 256
_NOBODY = 65534
_LAST_TIME = 2**33
_XATTR = "SCHILY.xattr."
_KEPT_XATTRS = ("security.capability", "user.")
_DROPPED_XATTRS = ("user.overlay.",)


@contextmanager
def inside(tree: Path) -> Iterator[None]:
    """Have `tree` for a root within the block. Only for a process of one thread.

    Nothing is imported meanwhile: Python would find its own library in the tree, as a stranger
    wrote it.
    """
    outside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    finders = sys.meta_path[:]
    sys.meta_path.clear()
    try:
        os.chroot(tree)
        os.chdir("/")
        try:
            yield
        finally:
            os.fchdir(outside)
            os.chroot(".")
    finally:
        sys.meta_path[:] = finders
        os.close(outside)


def apply(source: Source, budget: Budget) -> str:
    """Apply one unpacked layer to the root directory (see `inside`); the digest of the layer.

    Raises:
        ImageRefused: it is broken, hostile or too large.
        NoSpace: the disk is full.
    """
    tape = Tape(source, budget)
    layer = _Layer(budget)
    try:
        with tarfile.TarFile(fileobj=tape, mode="r", errorlevel=2) as archive:  # type: ignore[arg-type]
            while (entry := archive.next()) is not None:
                budget.entry()
                layer.add(entry, archive)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every one
        layer.finish()
    except NodeError:
        raise
    except tarfile.TarError as error:
        raise ImageRefused(f"a layer is no tar archive: {error}") from None
    except (MemoryError, RecursionError):
        raise ImageRefused("a layer needs too much memory to be read") from None
    except (UnicodeError, ValueError, OverflowError) as error:
        raise ImageRefused(f"a layer has an entry that makes no sense: {error}") from None
    except OSError as error:
        raise _failure(error) from None
    return tape.finish()


def _failure(error: OSError) -> NodeError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return NoSpace("the disk of this server is too full for the image")
    return ImageRefused(f"a layer cannot be applied: {error.strerror} ({_shown(error.filename)})")


def _shown(name: object) -> str:
    text = os.fsdecode(name) if isinstance(name, str | bytes) else ""
    return "".join(c if c.isprintable() else "?" for c in text[:120])


class _Layer:
    """One layer on its way into the tree."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._made: set[str] = set()
        self._times: dict[str, int] = {}

    def add(self, entry: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Apply one entry."""
        path = _place(entry.name)
        parent, _, name = path.rpartition("/")
        if name.startswith(_WHITEOUT):
            self._white_out(parent, name)
            return
        if entry.type not in _KINDS:
            self._budget.skipped += 1
            return
        if entry.islnk() and _place(entry.linkname) == path:
            return  # a file that is itself
        if path != "/":
            self._make_parents(parent)
            _make_way(path, directory=entry.isdir())
        self._make(path, entry, archive)
        self._note(path)

    def _note(self, path: str) -> None:
        """Remember what this layer made, and where, so that an opaque directory keeps it."""
        while path not in self._made:
            self._made.add(path)
            path = path.rpartition("/")[0]

    def _make_parents(self, parent: str) -> None:
        if parent and not os.path.isdir(parent):  # noqa: PTH112 - strings: there may be a million
            os.makedirs(parent, 0o755, exist_ok=True)  # noqa: PTH103

    def _make(self, path: str, entry: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        if entry.islnk():
            os.link(_place(entry.linkname), path, follow_symlinks=False)
            return
        if entry.issym():
            os.symlink(entry.linkname, path)  # noqa: PTH211
        elif entry.isdir():
            with _fine_if_there():
                os.mkdir(path, 0o700)  # noqa: PTH102
        elif entry.isfifo():
            os.mkfifo(path, 0o600)
        else:
            self._write(path, entry, archive)
        os.chown(path, _id(entry.uid), _id(entry.gid), follow_symlinks=False)
        if not entry.issym():
            os.chmod(path, stat.S_IMODE(entry.mode))  # noqa: PTH101
            self._attributes(path, entry)
        when = int(min(max(entry.mtime, 0), _LAST_TIME))
        if entry.isdir():
            self._times[path] = when  # what comes into it would change it
        else:
            os.utime(path, (when, when), follow_symlinks=False)

    def _write(self, path: str, entry: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        if entry.sparse is not None:  # holes are written as zeros: they count as they appear
            self._budget.take(entry.size)
        content = archive.extractfile(entry)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            left = entry.size
            while content is not None and left > 0:
                data = content.read(min(_CHUNK, left))
                if not data:
                    raise ImageRefused("a layer is cut off")
                file.write(data)
                left -= len(data)
                self._budget.wrote(len(data))

    def _attributes(self, path: str, entry: tarfile.TarInfo) -> None:
        """Keep attributes that mean the same in a workspace, and no other."""
        for key, value in entry.pax_headers.items():
            if not key.startswith(_XATTR):
                continue
            name = key.removeprefix(_XATTR)
            if not name.startswith(_KEPT_XATTRS) or name.startswith(_DROPPED_XATTRS):
                self._budget.skipped += 1
                continue
            try:
                os.setxattr(
                    path, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False
                )
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.E2BIG}:
                    raise ImageRefused("a layer has attributes that are too large") from None
                if error.errno not in {errno.ENOTSUP, errno.EINVAL, errno.EPERM, errno.ERANGE}:
                    raise
                self._budget.skipped += 1

    def _white_out(self, parent: str, name: str) -> None:
        """Remove what lower layers have of a name, or all they have in a directory."""
        if name == _OPAQUE:
            self._empty(parent or "/")
            return
        if name.startswith(_WHITEOUT * 2):
            return  # bookkeeping of an older file system
        gone = name.removeprefix(_WHITEOUT)
        if gone in {"", ".", ".."}:
            raise ImageRefused("a layer removes something that has no name")
        path = f"{parent}/{gone}"
        if path not in self._made:
            _remove(path)

    def _empty(self, directory: str) -> None:
        """Take out of a directory what this layer has not put there."""
        try:
            names = os.listdir(directory)  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            path = f"{directory.rstrip('/')}/{name}"
            if path not in self._made:
                _remove(path)
            elif stat.S_ISDIR(os.lstat(path).st_mode):
                self._empty(path)

    def finish(self) -> None:
        """Give directories their times, the deepest first."""
        for path in sorted(self._times, key=len, reverse=True):
            when = self._times[path]
            try:
                os.utime(path, (when, when), follow_symlinks=False)
            except FileNotFoundError:
                continue
        self._budget.look()


_KINDS = frozenset(
    {
        *(tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE),
        *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE),
    }
)


def _place(name: str) -> str:
    """The absolute path of an entry inside the tree.

    Raises:
        ImageRefused: it leads out of the tree, or is nested too deep.
    """
    if "\x00" in name:
        raise ImageRefused("a layer has a name with a NUL character")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ImageRefused(f"a layer leads out of the image: {_shown(name)}")
    if len(parts) > _MOST_DEPTH:
        raise ImageRefused(f"a layer is nested more than {_MOST_DEPTH} deep")
    return "/" + "/".join(parts)


def _make_way(path: str, *, directory: bool) -> None:
    """Remove what is at a path, unless both it and what comes are directories."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not (directory and stat.S_ISDIR(mode)):
        _remove(path)


def _remove(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)  # noqa: PTH108
    except (FileNotFoundError, NotADirectoryError):
        return


def _id(number: int) -> int:
    """A user or group that a workspace has; others become nobody."""
    return number if 0 <= number <= _NOBODY else _NOBODY


@contextmanager
def _fine_if_there() -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        return
