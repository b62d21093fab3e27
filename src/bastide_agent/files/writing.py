"""Writing files and making directories (spec runtime 4.4 and 4.5)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from bastide_agent.files.errors import file_error, is_directory, not_regular
from bastide_agent.files.place import DIRECTORY, opened_parent, tidy
from bastide_agent.http.errors import ApiError, invalid

NEW_FILE = 0o644
NEW_DIRECTORY = 0o755
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


def make_directories(path: str, mode: int) -> None:
    """Make a directory and its missing parents, all with these permission bits.

    Raises:
        ApiError: 409 when something else is there; 400, 403, 507.
    """
    fd = os.open("/", DIRECTORY)
    try:
        for name in tidy(path).split("/")[1:]:
            if not name:
                continue
            made = False
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, mode, dir_fd=fd)
                    made = True
                inner = os.open(name, DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno == errno.ENOTDIR:
                    message = f"{path[:512]}: {name[:255]!r} exists and is no directory"
                    raise ApiError(409, "conflict", message) from None
                raise file_error(error, path) from None
            os.close(fd)
            fd = inner
            if made:
                os.fchmod(fd, mode)  # the umask does not count
    finally:
        os.close(fd)


def _target(path: str) -> str:
    """Where a write to `path` goes: links are followed, also one that points to nothing yet."""
    if path.endswith("/"):
        raise is_directory(path)
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return os.path.realpath(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise file_error(error, path) from None
    return path


@contextmanager
def _place(path: str, *, create_dirs: bool) -> Iterator[tuple[int, str, os.stat_result | None]]:
    """The directory of a file to write, its name there, and what is there now."""
    target = _target(path)
    parent = target.rpartition("/")[0] or "/"
    if create_dirs:
        make_directories(parent, NEW_DIRECTORY)
    try:
        with opened_parent(target) as (dir_fd, name):
            if not name:
                raise is_directory(path)
            info: os.stat_result | None = None
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(name, dir_fd=dir_fd)
            if info is not None and not stat.S_ISREG(info.st_mode):
                raise is_directory(path) if stat.S_ISDIR(info.st_mode) else not_regular(path)
            yield dir_fd, name, info
    except ApiError as error:
        if error.status == 404 and not create_dirs:
            message = f"the directory of {path[:512]} does not exist; set create_dirs to make it"
            raise ApiError(404, "not_found", message) from None
        raise
    except OSError as error:
        raise file_error(error, path) from None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view[: 1 << 22]) :]


def replace_file(path: str, data: bytes, *, mode: int | None, create_dirs: bool) -> int:
    """Write a file in one step: readers see the old content or the new, never a part.

    Without `mode` an existing file keeps its bits and its owner, a new one gets 0644. Returns the
    size. Raises `ApiError`.
    """
    with _place(path, create_dirs=create_dirs) as (dir_fd, name, info):
        temporary = f".bastide-{os.urandom(6).hex()}.tmp"
        fd = os.open(temporary, _CREATE, 0o600, dir_fd=dir_fd)
        try:
            try:
                _write_all(fd, data)
                if info is not None:
                    with contextlib.suppress(OSError):
                        os.fchown(fd, info.st_uid, info.st_gid)
                kept = NEW_FILE if info is None else stat.S_IMODE(info.st_mode)
                os.fchmod(fd, kept if mode is None else mode)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=dir_fd)
            raise
    return len(data)


def append_file(path: str, data: bytes, *, mode: int | None, create_dirs: bool) -> int:
    """Add to the end of a file, made when missing; its size then. Raises `ApiError`."""
    with _place(path, create_dirs=create_dirs) as (dir_fd, name, _):
        made = True
        try:
            fd = os.open(name, _CREATE | os.O_APPEND, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            made = False
            fd = os.open(name, _APPEND, dir_fd=dir_fd)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise not_regular(path)
            if made or mode is not None:
                os.fchmod(fd, NEW_FILE if mode is None else mode)
            _write_all(fd, data)
            return os.fstat(fd).st_size
        finally:
            os.close(fd)


def content_bytes(value: object) -> bytes:
    """The `content` of a request as bytes.

    Raises:
        ApiError: 400 when it is missing, no string, or no valid Unicode.
    """
    if not isinstance(value, str):
        what = "is required" if value is None else "must be a string"
        raise invalid("content", f"content {what}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise invalid("content", "content must be valid Unicode (UTF-8)") from None
