"""Disks: one sparse ext4 file per workspace, whose size is the quota of bytes and of inodes.

Ids on a disk are plain (root is 0), so a disk can be copied, archived or moved between tiers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from bastide.domain.machine import MachineSpec, MachineStats
from bastide.node import ext4, kernel, loop, reflink
from bastide.node.errors import BootFailed, Conflict, NoSpace, room_for
from bastide.sync import sync_directory

MIB = 1024 * 1024
RESERVE_BYTES = 1024 * MIB
"""Bytes that must stay free on the host for a new disk to be made."""

_BYTES_PER_INODE = 8192
_EXTENDED = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"
_MKFS = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-i", str(_BYTES_PER_INODE), "-m", "0")
# The kernel would else fill the inode tables with zeros in the background: real blocks on the host.
_MOUNT = "discard,noinit_itable,errors=remount-ro"
_LAYERS = ("upper", "work")
_ROOM = "room"
_ROOM_FILES = 16
_HELD = "held"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLD = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FREE_TIMEOUT = 10.0
_log = structlog.get_logger(__name__)
_PROGRAM_TIMEOUT = 300.0
"""Seconds for mkfs, e2fsck or resize2fs; on a disk of 100 GiB they take few."""


class Disks:
    """The disks of this node, below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()  # as the kernel lists the files of loop devices
        self.directories: tuple[Path, ...] = (self.directory,)

    def move(self, directory: Path) -> None:
        """Keep disks in another directory from now on; those there are stay until `bring`."""
        self.directories = (directory.resolve(), self.directory)
        self.directory = self.directories[0]

    def path(self, machine: str) -> Path:
        """The file of a machine's disk, there or to come."""
        paths = [directory / f"{machine}.ext4" for directory in self.directories]
        return next((path for path in paths if path.is_file()), paths[0])

    def bring(self, machine: str) -> None:
        """Move a disk that is not mounted to where disks are kept now; it stays if that is full.

        Blocks for as long as its data takes to be copied.
        """
        file, draft = self.path(machine), self.directory / f".{machine}.ext4"
        if file.parent == self.directory or not file.exists() or self._growing(machine).exists():
            return
        self._wait_free(machine)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        try:
            self.check_room()
            reflink.copy(file, draft)
        except (NoSpace, OSError) as error:
            _log.warning("disk.stays", workspace=machine, reason=str(error))
            return
        draft.rename(self.directory / f"{machine}.ext4")
        file.unlink()

    def exists(self, machine: str) -> bool:
        """Whether a machine has a disk."""
        return self.path(machine).is_file()

    def create(self, machine: str, size_mb: int) -> None:
        """Make an empty disk of `size_mb` MiB; one that is there is left as it is. Blocks.

        Raises:
            NoSpace: the host is too full.
        """
        if self.exists(machine):
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_room()
        draft = self.directory / f".{machine}.ext4"
        try:
            with room_for(f"the disk of {machine}"):
                self._make(draft, size_mb)
                draft.rename(self.path(machine))
        finally:
            draft.unlink(missing_ok=True)

    def _make(self, file: Path, size_mb: int) -> None:
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(descriptor, size_mb * MIB)
        finally:
            os.close(descriptor)
        self._format(file)

    def _format(self, file: Path) -> None:
        done = _program(*_MKFS, "-E", _EXTENDED, str(file))
        if done.returncode != 0:
            reason = _words(done)
            if "No space left" in reason:
                raise NoSpace("the host has no room for a new disk")
            raise BootFailed(f"a disk cannot be formatted: {reason}")

    def grow(self, machine: str, size_mb: int) -> None:
        """Make a disk that is not mounted as large as `size_mb` MiB; never smaller. Blocks.

        One whose growth was interrupted is mended and grown to its end; one on which the kernel
        met errors, as on a host that was full, is mended.

        Raises:
            BootFailed: its file system is damaged, or a program does not end.
            NoSpace: the host is too full.
        """
        file, growing = self.path(machine), self._growing(machine)
        size, cut_short = max(file.stat().st_size, size_mb * MIB), growing.exists()
        large = file.stat().st_size == size and ext4.fills(file)
        if large and not ext4.damaged(file) and not cut_short:
            return
        # resize2fs insists on a check just before; 1 means mended
        checked = _program("e2fsck", "-fp", str(file))
        if checked.returncode not in {0, 1}:
            if not cut_short:
                raise BootFailed(f"the disk of {machine} is damaged: {_words(checked)}")
            self.mend(machine)
        growing.touch(mode=0o600)
        sync_directory(growing.parent)
        os.truncate(file, size)
        resized = _program("resize2fs", str(file))
        if resized.returncode != 0:
            if "No space left" in _words(resized):
                raise NoSpace(f"the host has no room for the disk of {machine} to grow")
            raise BootFailed(f"the disk of {machine} cannot grow: {_words(resized)}")
        growing.unlink()

    def _growing(self, machine: str) -> Path:
        """There while a disk grows: killed amid it, `resize2fs` leaves what `-p` cannot mend."""
        return self.path(machine).with_name(f".{machine}.growing")

    def mend(self, machine: str) -> None:
        """Check a disk and repair whatever is wrong. Blocks.

        One that another kernel than the host's has written is in the hands of its workspace: the
        host's own must not meet what that made up.

        Raises:
            BootFailed: its file system is damaged beyond that.
        """
        checked = _program("e2fsck", "-fy", str(self.path(machine)))
        if checked.returncode not in {0, 1, 2}:  # 1 and 2 mean mended
            raise BootFailed(f"the disk of {machine} is damaged: {_words(checked)}")

    def mount(self, machine: str, point: Path) -> None:
        """Mount a disk at `point`, with its layers `upper` and `work` in place. Blocks.

        Raises:
            BootFailed: it is missing or the kernel refuses it.
        """
        self._wait_free(machine)
        point.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_NOATIME
        try:
            with loop.attached(self.path(machine)) as device:
                kernel.mount(device, point, "ext4", flags, _MOUNT)
            for name in _LAYERS:
                with suppress(FileExistsError):
                    (point / name).mkdir(mode=0o755)
            _give_room(point)
        except OSError as error:
            kernel.unmount_all(point)
            raise BootFailed(f"the disk of {machine} cannot be mounted: {error}") from error

    def keep_room(self, point: Path) -> None:
        """Take a few inodes and blocks of a mounted disk, which the next mount gives back.

        An overlay makes directories when it is mounted: without them a workspace that has filled
        its disk could never start again. Call it before the workspace can write.
        """
        with suppress(OSError):  # full already: whatever could be had
            with suppress(FileExistsError):
                (point / _ROOM).mkdir(mode=0o700)
            with _room(point) as room:
                for number in range(_ROOM_FILES):
                    file = os.open(str(number), _NEW, 0o600, dir_fd=room)
                    try:
                        os.write(file, b"room")
                    finally:
                        os.close(file)

    def hold_room(self, point: Path) -> None:
        """Take all that is free on a mounted disk, without a block of the host's; see `shortage`.

        To be repeated, for files are deleted. The next mount gives it back. Blocks.
        """
        with suppress(OSError):  # all of it is taken
            with suppress(FileExistsError):
                (point / _ROOM).mkdir(mode=0o700)
            with _room(point) as room:
                file = os.open(_HELD, _HOLD, 0o600, dir_fd=room)
                try:
                    while free := os.statvfs(file).f_bavail * os.statvfs(file).f_frsize:
                        os.posix_fallocate(file, os.fstat(file).st_size, free)
                finally:
                    os.close(file)

    def give_room(self, point: Path) -> None:
        """Give back what `hold_room` took. Blocks."""
        with suppress(OSError), _room(point) as room:  # it is read-only, or nothing is held
            os.unlink(_HELD, dir_fd=room)

    def _wait_free(self, machine: str) -> None:
        """Two mounts of one file would destroy it: wait until the kernel let go of the last."""
        file = self.path(machine)
        deadline = time.monotonic() + _FREE_TIMEOUT
        while file in loop.devices(file.parent).values():
            if time.monotonic() > deadline:
                raise BootFailed(f"the disk of {machine} is still in use by an earlier boot")
            time.sleep(0.02)

    def unmount(self, point: Path) -> None:
        """Unmount a disk; harmless when it is not mounted. Blocks while it is written out."""
        with suppress(OSError):
            kernel.thaw(point)
        kernel.unmount_all(point)

    def at_rest(self, spec: MachineSpec) -> MachineStats:
        """What a machine uses that does not run."""
        used = 0
        with suppress(OSError):
            used = ext4.used(self.path(spec.id))
        return MachineStats(
            cpu_seconds=0,
            memory_bytes=0,
            memory_limit_bytes=spec.resources.memory_mb * MIB,
            disk_bytes=used,
            disk_limit_bytes=spec.resources.disk_mb * MIB,
            network_in_bytes=0,
            network_out_bytes=0,
            pids=0,
        )

    def check_room(self) -> None:
        """Refuse to begin something that needs room on a host that has little left.

        Raises:
            NoSpace: says how much there is.
        """
        free = self.free()
        if free < RESERVE_BYTES:
            raise NoSpace(
                f"{free // MIB} MiB are free below {self.directory.parent}, "
                f"{RESERVE_BYTES // MIB} must be: delete workspaces or add storage",
                free_bytes=free,
            )

    def free(self) -> int:
        """Bytes that disks can still take; a pool is only as roomy as the host it is sparse on."""
        there = (place if place.exists() else place.parent for place in self.directories)
        return min(shutil.disk_usage(place).free for place in there)

    def copy(self, machine: str, target: Path) -> bool:
        """Copy a disk to a new file; whether the two share their blocks. Blocks.

        One that is mounted must be held still (`kernel.freeze`), or the copy is of no moment.

        Raises:
            NoSpace: the host is too full; nothing is left of the copy.
            Conflict: there is no such disk.
        """
        self.check_room()
        try:
            with room_for(f"a copy of the disk of {machine}"):
                return reflink.copy(self.path(machine), target)
        except FileNotFoundError:
            raise Conflict(f"{machine} has no disk to copy") from None

    def stage(self, machine: str, source: Path) -> None:
        """Copy `source` beside a disk, for `replace`; the disk may be in use. Blocks.

        Raises:
            NoSpace: the host is too full; nothing is left of the copy.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_room()
        draft = self._draft(machine)
        draft.unlink(missing_ok=True)
        with room_for(f"a copy of the disk of {machine}"):
            reflink.copy(source, draft)

    def replace(self, machine: str) -> None:
        """Put what was staged in the place of a disk, which is kept until `settle`. Blocks."""
        self._wait_free(machine)
        former = self._former(machine)
        draft = self._draft(machine)
        if self.exists(machine) and not former.exists():
            self.path(machine).rename(former)
        draft.rename(self.path(machine))

    def unstage(self, machine: str) -> None:
        """Remove what was staged and not used; harmless when there is nothing."""
        self._draft(machine).unlink(missing_ok=True)

    def _draft(self, machine: str) -> Path:
        return self.path(machine).with_name(f".{machine}.ext4")

    def replaced(self, machine: str) -> bool:
        """Whether a replacement of this disk has not been settled."""
        return self._former(machine).exists()

    def settle(self, machine: str, *, good: bool) -> None:
        """End a replacement: the former disk goes, or comes back when it was no `good`."""
        self.unstage(machine)
        former = self._former(machine)
        if not good and former.exists():
            former.rename(former.with_name(f"{machine}.ext4"))
        former.unlink(missing_ok=True)

    def _former(self, machine: str) -> Path:
        paths = [directory / f".{machine}.former" for directory in self.directories]
        there = self.path(machine).with_name(f".{machine}.former")
        return next((path for path in paths if path.is_file()), there)

    def remove(self, machine: str) -> None:
        """Delete a disk and what an interrupted creation or replacement left of it."""
        names = (f"{machine}.ext4", f".{machine}.ext4", f".{machine}.former", f".{machine}.growing")
        for place in self.directories:
            for name in names:
                (place / name).unlink(missing_ok=True)

    def attached(self) -> list[Path]:
        """The disks that a loop device holds, mounted or left over."""
        return [file for place in self.directories for file in loop.devices(place).values()]

    def all(self) -> list[str]:
        """Ids of the machines that have a disk."""
        return [path.stem for place in self.directories for path in place.glob("ws_*.ext4")]

    def drafts(self) -> list[Path]:
        """What interrupted creations left."""
        return [path for place in self.directories for path in place.glob(".ws_*.ext4")]


@contextmanager
def _room(point: Path) -> Iterator[int]:
    """The directory of `keep_room`, as a descriptor: it may be a disk that somebody else wrote."""
    room = os.open(point / _ROOM, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield room
    finally:
        os.close(room)


def _give_room(point: Path) -> None:
    """Free what `keep_room` took."""
    with suppress(FileNotFoundError, NotADirectoryError), _room(point) as room:
        for name in os.listdir(room):  # noqa: PTH208 - a descriptor, not a path
            with suppress(IsADirectoryError):
                os.unlink(name, dir_fd=room)


def usage(point: Path) -> int:
    """Bytes in use on a mounted disk."""
    numbers = os.statvfs(point)
    return (numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize


def _program(*command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; whoever calls holds the machine's lock, so it has a deadline."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROGRAM_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BootFailed(
            f"{command[0]} did not end in {_PROGRAM_TIMEOUT:.0f} s: the host's storage is too slow"
        ) from None


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stderr or done.stdout)[-1000:].decode(errors="replace").strip()
