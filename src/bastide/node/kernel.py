"""The system calls the node needs and Python has no name for.

Each raises `OSError` with the kernel's reason. Credentials changed here (`become`) belong to the
calling thread alone, so such a call is made in a thread of its own that ends afterwards.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_NOATIME = 1024
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_IDMAP = 0x100000

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
# These numbers are the same on every architecture: they came after the tables were unified.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_SYS_PIDFD_GETFD = 438
_FIFREEZE = 0xC0045877
_FITHAW = 0xC0045878
_PR_SET_SECUREBITS = 28
_PR_SET_CHILD_SUBREAPER = 36
_SECBIT_NO_SETUID_FIXUP = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)
# Ids are unsigned; ctypes would read one above 2**31 as a negative number.
_libc.setfsuid.restype = ctypes.c_uint
_libc.setfsgid.restype = ctypes.c_uint


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _path(value: Path | str) -> ctypes.c_char_p:
    return ctypes.c_char_p(os.fsencode(value))


def mount(source: Path | str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount a file system of type `kind` at `target`."""
    _checked(
        _libc.mount(
            _path(source),
            _path(target),
            ctypes.c_char_p(kind.encode()),
            ctypes.c_ulong(flags),
            ctypes.c_char_p(options.encode()),
        ),
        f"mount {kind} at {target}",
    )


def unmount(target: Path, *, lazy: bool = False) -> None:
    """Unmount what is mounted at `target`; a symlink there is never followed."""
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    _checked(_libc.umount2(_path(target), ctypes.c_int(flags)), f"unmount {target}")


def unmount_all(target: Path) -> int:
    """Unmount everything stacked at `target`, lazily where it is busy; how many there were."""
    count = 0
    while True:
        try:
            unmount(target)
        except OSError as error:
            if error.errno == errno.EBUSY:
                unmount(target, lazy=True)
            elif error.errno in {errno.EINVAL, errno.ENOENT}:  # not a mount point, not there
                return count
            else:
                raise
        count += 1


def clone_mount(path: Path) -> int:
    """A detached copy of the mount at `path`, as a file descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    return _checked(
        _libc.syscall(
            ctypes.c_long(_SYS_OPEN_TREE),
            ctypes.c_int(_AT_FDCWD),
            _path(path),
            ctypes.c_uint(flags),
        ),
        f"open_tree {path}",
    )


def set_mount(mount_fd: int, attributes: int, user_namespace: int | None = None) -> None:
    """Set attributes on a detached mount, id-mapped through `user_namespace` when given."""
    if user_namespace is not None:
        attributes |= MOUNT_ATTR_IDMAP
    attr = _MountAttr(attributes, 0, MS_PRIVATE, user_namespace or 0)
    _checked(
        _libc.syscall(
            ctypes.c_long(_SYS_MOUNT_SETATTR),
            ctypes.c_int(mount_fd),
            ctypes.c_char_p(b""),
            ctypes.c_uint(_AT_EMPTY_PATH),
            ctypes.byref(attr),
            ctypes.c_size_t(ctypes.sizeof(attr)),
        ),
        "mount_setattr",
    )


def attach_mount(mount_fd: int, target: Path) -> None:
    """Attach a detached mount at `target`."""
    _checked(
        _libc.syscall(
            ctypes.c_long(_SYS_MOVE_MOUNT),
            ctypes.c_int(mount_fd),
            ctypes.c_char_p(b""),
            ctypes.c_int(_AT_FDCWD),
            _path(target),
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        ),
        f"move_mount to {target}",
    )


def freeze(point: Path) -> None:
    """Write out the file system mounted at `point`, and hold back every further write to it.

    Only what is mounted exactly there: anything else would be the host's own file system.
    """
    if point.stat().st_dev == point.parent.stat().st_dev:
        raise OSError(errno.EINVAL, f"nothing is mounted at {point}")
    _file_system(point, _FIFREEZE)


def thaw(point: Path) -> None:
    """Let writes go on; harmless when they are not held back."""
    try:
        _file_system(point, _FITHAW)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _file_system(point: Path, request: int) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(point, flags)
    try:
        fcntl.ioctl(descriptor, request, 0)
    finally:
        os.close(descriptor)


def descriptor_of(pid: int, number: int) -> int:
    """A copy of the open file `number` of another process."""
    process = os.pidfd_open(pid)
    try:
        return _checked(
            _libc.syscall(
                ctypes.c_long(_SYS_PIDFD_GETFD),
                ctypes.c_int(process),
                ctypes.c_int(number),
                ctypes.c_uint(0),
            ),
            f"pidfd_getfd {number} of {pid}",
        )
    finally:
        os.close(process)


def become(uid: int, gid: int) -> None:
    """Give the calling thread a file-system identity, its capabilities kept.

    Only for a thread that ends right after: nothing undoes it.
    """
    _checked(
        _libc.prctl(
            ctypes.c_int(_PR_SET_SECUREBITS),
            ctypes.c_ulong(_SECBIT_NO_SETUID_FIXUP),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        ),
        "prctl(PR_SET_SECUREBITS)",
    )
    # These two report the former value, not success: ask again with -1 to learn what holds.
    _libc.setfsgid(ctypes.c_uint(gid))
    _libc.setfsuid(ctypes.c_uint(uid))
    if _libc.setfsgid(ctypes.c_uint(2**32 - 1)) != gid:
        raise OSError(errno.EPERM, f"setfsgid {gid} was refused")
    if _libc.setfsuid(ctypes.c_uint(2**32 - 1)) != uid:
        raise OSError(errno.EPERM, f"setfsuid {uid} was refused")


def adopt_orphans() -> None:
    """Make this process the parent of orphaned descendants, so that it learns their exit code."""
    _checked(
        _libc.prctl(
            ctypes.c_int(_PR_SET_CHILD_SUBREAPER),
            ctypes.c_ulong(1),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        ),
        "prctl(PR_SET_CHILD_SUBREAPER)",
    )
