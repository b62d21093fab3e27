"""The root file system of a container: overlay of an image and a disk, both id-mapped.

Image and disk hold plain ids (root is 0). Both layers are mounted through an id mapping to the
machine's own range, so neither is ever chowned. The overlay does its work on the upper layer
with the identity of whoever mounts it, and id 0 of the host has no place in the mapping: so the
mounting thread takes the first id of the range as its file-system identity and keeps its
capabilities.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bastide.node import kernel
from bastide.node.errors import BootFailed
from bastide.node.layout import check_layout
from bastide.node.machines.idrange import IdRange, user_namespace

_OPTIONS = "redirect_dir=off,metacopy=off,index=off"


@dataclass(frozen=True)
class RootFs:
    """Where a machine's root is put together: `merged` is what it sees.

    `lower` and `disk` are only mounted while the overlay is made; the overlay keeps its own
    reference to them.
    """

    directory: Path

    @property
    def merged(self) -> Path:
        """The mount point of the overlay."""
        return self.directory / "rootfs"

    @property
    def _lower(self) -> Path:
        return self.directory / "lower"

    @property
    def _disk(self) -> Path:
        return self.directory / "upper"

    def assemble(self, image: Path, disk: Path, ids: IdRange) -> None:
        """Mount image over disk at `merged`. Blocks: call it in a thread.

        `image` is the mounted image, `disk` the mounted disk with `upper` and `work` in it.

        Raises:
            BootFailed: the kernel refuses, or the tree inside is hostile.
        """
        for point in (self.merged, self._lower, self._disk):
            point.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            with user_namespace(ids) as namespace:
                _in_own_thread(lambda: self._mount(image, disk, ids, namespace))
            check_layout(self.merged)
        except OSError as error:
            self.dismantle()
            raise BootFailed(f"the root file system cannot be mounted: {error}") from error
        except BaseException:
            self.dismantle()
            raise

    def _mount(self, image: Path, disk: Path, ids: IdRange, namespace: int) -> None:
        attributes = kernel.MOUNT_ATTR_NODEV | kernel.MOUNT_ATTR_NOSUID
        _attach_mapped(image, self._lower, attributes | kernel.MOUNT_ATTR_RDONLY, namespace)
        _attach_mapped(disk, self._disk, attributes, namespace)
        descriptors: list[int] = []
        try:
            # By descriptor: the names on the disk are not trusted to be directories.
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            for name in ("upper", "work"):
                descriptors.append(os.open(self._disk / name, flags))  # noqa: PERF401 - closed below
            upper, work = descriptors
            kernel.become(ids.first, ids.first)
            kernel.mount(
                "overlay",
                self.merged,
                "overlay",
                kernel.MS_NODEV | kernel.MS_NOSUID | kernel.MS_NOATIME,
                f"lowerdir={self._lower},upperdir=/proc/self/fd/{upper},"
                f"workdir=/proc/self/fd/{work},{_OPTIONS}",
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            kernel.unmount(self._lower, lazy=True)
            kernel.unmount(self._disk, lazy=True)

    def lay(self, places: Iterable[str], ids: IdRange) -> None:
        """Have an empty file at each of these absolute places, for a bind mount to cover. Blocks.

        A runtime that restores looks for them before /proc and /sys are mounted.

        Raises:
            BootFailed: the disk is full, or something else is in the way.
        """

        def make() -> None:
            kernel.become(ids.first, ids.first)
            for place in places:
                _lay(self.merged, Path(place).parts[1:])

        try:
            _in_own_thread(make)
        except OSError as error:
            raise BootFailed(f"the root file system has no place to mount: {error}") from error

    def dismantle(self) -> None:
        """Unmount whatever is mounted here; harmless when nothing is."""
        for point in (self.merged, self._lower, self._disk):
            kernel.unmount_all(point)


def _lay(root: Path, parts: tuple[str, ...]) -> None:
    """Make one file and the directories above it. No link is followed: it is a workspace's disk."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    at = os.open(root, flags)
    try:
        for name in parts[:-1]:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=at)
            below = os.open(name, flags, dir_fd=at)
            os.close(at)
            at = below
        with suppress(FileExistsError):
            os.mknod(parts[-1], 0o444 | stat.S_IFREG, dir_fd=at)
    finally:
        os.close(at)


def _attach_mapped(source: Path, target: Path, attributes: int, namespace: int) -> None:
    mount = kernel.clone_mount(source)
    try:
        kernel.set_mount(mount, attributes, namespace)
        kernel.attach_mount(mount, target)
    finally:
        os.close(mount)


def _in_own_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread that ends with it, and with it the credentials it took on."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure.append(error)

    thread = threading.Thread(target=run, name="rootfs-mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
