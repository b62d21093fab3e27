"""Backups of the workspace's files, for the control plane: out as a plain tar, and back in.

Paths in them are relative to `/`. Owners, modes, times, links, holes, access lists and attributes
of the workspace's own are kept. What is no file of the workspace is left out, both ways: other
file systems (/proc, /sys, /dev, /run), the bundle, and the files the node puts in their place.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Callable, Sequence

from bastide_agent.http.errors import invalid, not_found
from bastide_agent.pattern import compiled
from bastide_agent.transfer.pack import SKIPPED, Packer, Root
from bastide_agent.transfer.unpack import unpack

PLACED = ("etc/resolv.conf", "etc/hosts", "etc/hostname")  # bound there by the node
FOREIGN = ("proc", "sys", "dev", "run", ".bastide")
_PLACED = frozenset(path.encode() for path in PLACED)
_FOREIGN = frozenset(name.encode() for name in FOREIGN)


def roots_of(paths: Sequence[str]) -> list[Root]:
    """What to pack, each under its whole path; what is below another one comes with that.

    Raises:
        ApiError: 404 when one is not there, 400 when it is no file of the workspace.
    """
    wanted = sorted({path.rstrip("/") or "/" for path in paths})
    only = os.lstat("/").st_dev
    found: list[Root] = []
    stored: set[str] = set()
    for path in wanted:
        if any(other.path == "/" or path.startswith(f"{other.path}/") for other in found):
            continue
        _check(path, only)
        relative = path.lstrip("/")
        parts = relative.split("/")[:-1]
        above = []
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            if name not in stored:
                stored.add(name)
                above.append((f"/{name}", os.fsencode(name)))
        found.append(Root(path, os.fsencode(relative), relative, above))
    return found


def _check(path: str, only: int) -> None:
    try:
        info = os.lstat(path)
        place = info if stat.S_ISDIR(info.st_mode) else os.lstat(path.rpartition("/")[0] or "/")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise not_found(f"there is nothing at {path!r} in the workspace") from None
        reason = os.strerror(error.errno or 0).lower()
        raise invalid("paths", f"{path!r} cannot be read: {reason}") from None
    if stat.S_ISLNK(place.st_mode):
        place = os.stat(path.rpartition("/")[0] or "/")  # noqa: PTH116  (pathlib is dear to import)
    if place.st_dev != only:
        raise invalid("paths", f"{path!r} is not on the workspace's disk")


def _check_dest(dest: str) -> None:
    """Refuse what is lost at the next boot, or no place for files at all, wherever links lead.

    What cannot be looked at is left to whoever opens it.
    """
    path = dest
    while True:
        try:
            info = os.stat(path)  # noqa: PTH116  (pathlib is dear to import)
        except FileNotFoundError:
            path = path.rstrip("/").rpartition("/")[0] or "/"
            continue
        except OSError:
            return
        if stat.S_ISDIR(info.st_mode) and info.st_dev != os.lstat("/").st_dev:
            raise invalid("dest", f"dest {dest!r} is not on the workspace's disk")
        return


def excluding(excludes: Sequence[str]) -> Callable[[str, str], bool]:
    """Whether an entry is to be left out.

    An exclude that begins with `/` is the path of one place; another one is the name of entries
    anywhere, or a path relative to `/`. Both may hold `*`, `?` and `[…]`.
    """
    anywhere = [glob.strip("/") for glob in excludes if not glob.startswith("/")]
    placed = [glob.strip("/") for glob in excludes if glob.startswith("/")]
    paths = "|".join(fnmatch.translate(glob) for glob in placed + anywhere if glob)
    names = "|".join(fnmatch.translate(glob) for glob in anywhere if glob)
    fits_path = compiled(paths or "(?!)").match
    fits_name = compiled(names or "(?!)").match

    def excluded(name: str, relative: str) -> bool:
        return relative in PLACED or fits_path(relative) is not None or fits_name(name) is not None

    return excluded


def pack(send: Callable[[bytes], None], roots: Sequence[Root], excludes: Sequence[str]) -> None:
    """Pack everything into a plain tar.

    Raises:
        ClientGoneError: nobody takes it.
    """
    Packer(send, excluding(excludes), backup=True).pack(roots)


def restore(read: Callable[[], bytes], dest: str) -> int:
    """Extract a backup over what is in `dest`; how many files and links that were.

    Raises:
        ApiError: 400 when `dest` is not on the workspace's disk; else as `unpack`.
        ClientGoneError: as `unpack`.
    """
    _check_dest(dest)
    at_root = not dest.strip("/")

    def left_out(parts: Sequence[bytes]) -> bool:
        if parts == [SKIPPED]:
            return True
        return at_root and bool(parts) and (parts[0] in _FOREIGN or b"/".join(parts) in _PLACED)

    return unpack(read, dest, keep_owner=True, left_out=left_out)
