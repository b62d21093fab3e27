"""Loop devices: a file as a block device, without a process to set it up."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01
_LOOP_SET_CAPACITY = 0x4C07
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_ATTEMPTS = 64


class _LoopInfo(ctypes.Structure):
    _fields_ = (
        ("lo_device", ctypes.c_uint64),
        ("lo_inode", ctypes.c_uint64),
        ("lo_rdevice", ctypes.c_uint64),
        ("lo_offset", ctypes.c_uint64),
        ("lo_sizelimit", ctypes.c_uint64),
        ("lo_number", ctypes.c_uint32),
        ("lo_encrypt_type", ctypes.c_uint32),
        ("lo_encrypt_key_size", ctypes.c_uint32),
        ("lo_flags", ctypes.c_uint32),
        ("lo_file_name", ctypes.c_uint8 * 64),
        ("lo_crypt_name", ctypes.c_uint8 * 64),
        ("lo_encrypt_key", ctypes.c_uint8 * 32),
        ("lo_init", ctypes.c_uint64 * 2),
    )


class _LoopConfig(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _LoopInfo),
        ("reserved", ctypes.c_uint64 * 8),
    )


@contextlib.contextmanager
def attached(path: Path, *, read_only: bool = False) -> Iterator[Path]:
    """The device of `path` for as long as the block runs, and beyond while it is mounted.

    The kernel lets go of the device by itself at the last unmount (autoclear).

    Raises:
        OSError: the file cannot be opened or no device can be had.
    """
    mode = os.O_RDONLY if read_only else os.O_RDWR
    backing = os.open(path, mode | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        device, node = _configure(backing, path, mode, read_only=read_only)
    finally:
        os.close(backing)
    try:
        yield node
    finally:
        os.close(device)


def _configure(backing: int, path: Path, mode: int, *, read_only: bool) -> tuple[int, Path]:
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if read_only else 0)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            node = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
            try:
                device = os.open(node, mode | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # devtmpfs is a moment late with the node
            config = _LoopConfig(fd=backing, block_size=4096)
            config.info.lo_flags = flags
            name = os.fsencode(path)[-63:]
            config.info.lo_file_name[: len(name)] = name
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(config))
            except OSError as error:
                os.close(device)
                if error.errno == errno.EBUSY:
                    continue  # somebody else took it between the question and the answer
                raise
            return device, node
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, f"no free loop device for {path}")


def devices(under: Path) -> dict[Path, Path]:
    """Every loop device whose backing file is below `under`: device → file."""
    found: dict[Path, Path] = {}
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            file = Path(entry.read_text().strip().removesuffix(" (deleted)"))
            if file.is_relative_to(under):
                found[Path("/dev") / entry.parent.parent.name] = file
    return found


def resized(device: Path) -> None:
    """Let a device see that its file has another size."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _LOOP_SET_CAPACITY)
    finally:
        os.close(fd)


def detach(device: Path) -> None:
    """Let go of a device's file; harmless when nothing is attached."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    finally:
        os.close(fd)
