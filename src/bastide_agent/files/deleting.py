"""Deleting files and whole trees (spec runtime 4.7)."""

from __future__ import annotations

import errno
import os
import stat

from bastide_agent.files.errors import file_error
from bastide_agent.files.place import DIRECTORY, opened_parent
from bastide_agent.http.errors import ApiError, not_found

PROTECTED = (
    "/", "/bin", "/sbin", "/usr", "/lib", "/lib64", "/etc", "/dev", "/proc", "/sys", "/boot",
    "/run", "/.bastide",
)  # fmt: skip
MAX_LEVELS = 64  # directories held open; deeper ones are moved up first
BATCH = 1024  # directories noted in one look at a directory
RACES = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY)
LOOKS = 10_000  # looks that found more than the one before, until we call it a race lost


def _identities() -> set[tuple[int, int]]:
    """Device and inode of every protected directory, and of links that stand for one."""
    found: set[tuple[int, int]] = set()
    for path in PROTECTED:
        for look in (os.lstat, os.stat):
            try:
                info = look(path)
            except OSError:
                continue
            found.add((info.st_dev, info.st_ino))
    return found


def _refuse_protected(path: str, dir_fd: int, name: str) -> None:
    place = os.readlink(f"/proc/self/fd/{dir_fd}").rstrip("/")  # noqa: PTH115
    protected = f"{place}/{name}" in PROTECTED or not name
    if not protected:
        info = os.lstat(name, dir_fd=dir_fd)
        protected = (info.st_dev, info.st_ino) in _identities()
    if protected:
        raise ApiError(403, "forbidden", f"{path[:512]} is protected and cannot be deleted")


def delete(path: str) -> None:
    """Delete a file, a link (not what it points to) or a directory with all it holds.

    Follows no link on the way down, whatever is swapped meanwhile.

    Raises:
        ApiError: 403 for a protected path under every spelling, 404, 409 when something keeps
            filling or holding a directory.
    """
    with opened_parent(path) as (dir_fd, name):
        try:
            _refuse_protected(path, dir_fd, name)
            if not _remove(name, dir_fd):
                _remove_tree(name, dir_fd)
        except FileNotFoundError:
            raise not_found(f"{path[:512]}: no such file or directory") from None
        except OSError as error:
            raise file_error(error, path) from None


def _remove(name: str, dir_fd: int) -> bool:
    """Unlink what is no directory; False when it is one."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except IsADirectoryError:
        return False
    except PermissionError:  # some file systems say this of a directory
        if not stat.S_ISDIR(os.lstat(name, dir_fd=dir_fd).st_mode):
            raise
        return False
    return True


def _remove_tree(name: str, dir_fd: int) -> None:
    """Empty and remove a directory, with a bounded number of open directories."""
    first = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    stack: list[tuple[str, int, list[str]]] = [(name, first, [])]
    looks = LOOKS
    try:
        while stack:
            name, fd, folders = stack[-1]
            if not folders:
                looks -= 1
                folders += _empty(fd)
            if not folders or looks <= 0:
                os.close(fd)
                stack.pop()
                try:
                    os.rmdir(name, dir_fd=stack[-1][1] if stack else dir_fd)
                    looks += 1
                except OSError as error:  # swapped, gone or filled again: the next look shows
                    if not stack or error.errno not in RACES:
                        raise
                continue
            inner = folders.pop()
            try:
                if len(stack) < MAX_LEVELS:
                    opened = os.open(inner, DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                    stack.append((inner, opened, []))
                    looks += 1
                else:
                    place = f".bastide-{os.urandom(8).hex()}"
                    os.rename(inner, place, src_dir_fd=fd, dst_dir_fd=first)
            except OSError as error:  # swapped or gone: the next look shows
                if error.errno not in RACES:
                    raise
    finally:
        for _, fd, _ in stack:
            os.close(fd)


def _empty(fd: int) -> list[str]:
    """Unlink the files of a directory; some of the directories in it, or none when it is empty."""
    folders: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False) or not _remove(entry.name, fd):
                    folders.append(entry.name)
            except FileNotFoundError:
                continue
            if len(folders) >= BATCH:
                break
    return folders
