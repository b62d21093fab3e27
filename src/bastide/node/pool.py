"""The pool: a file system whose files can share blocks, on a host whose own cannot.

XFS in one sparse file, `state_dir/pool.xfs`, mounted at `state_dir/pool`; only disks and
snapshots lie in it. It stays mounted when the node ends, for machines go on. Its log has its
blocks from the start, so a host that runs full fails writes, not the whole pool.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import structlog

from bastide.node import kernel, loop, reflink
from bastide.node.errors import NoSpace, NotReady
from bastide.node.mounts import is_mounted
from bastide.settings import Settings

MIB = 1024 * 1024
LEAST_MIB = 512
"""The smallest pool that is made; XFS itself needs 300 MiB."""
MKFS = "mkfs.xfs"
_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_NOATIME
_OPTIONS = "discard"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pool:
    """The pool of one state directory; `wanted` is the setting `storage.pool`."""

    state_dir: Path
    wanted: str | int

    @classmethod
    def of(cls, settings: Settings) -> Pool:
        """The pool that the settings ask for."""
        return cls(settings.state_dir.resolve(), settings.storage.pool)

    @property
    def file(self) -> Path:
        """The file that holds it."""
        return self.state_dir / "pool.xfs"

    @property
    def point(self) -> Path:
        """Where it is mounted."""
        return self.state_dir / "pool"

    @property
    def mounted(self) -> bool:
        """Whether it is there."""
        return is_mounted(self.point)

    def open(self) -> Path | None:
        """Mount it, made if there is none; None when it is not to be used. Blocks.

        One that exists is used whatever the settings say now: disks may lie in it.

        Raises:
            NotReady: it was asked for, or holds disks, and cannot be had.
            NoSpace: the host has no room for one of the least size.
        """
        if self.mounted:
            self._grow()
            return self.point
        if not self.file.exists():
            if self.wanted == "off" or (self.wanted == "auto" and not self._useful()):
                return None
            self._make()
        self._mount()
        self._grow()
        return self.point

    def _useful(self) -> bool:
        """Whether the host's own file system has no shared blocks, and one that has can be made."""
        self.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        if reflink.supported(self.state_dir):
            return False
        if shutil.which(MKFS, path=_PATH) is None:
            _log.warning("pool.missing", reason=f"{MKFS} is not installed (package xfsprogs)")
            return False
        if self._size() < LEAST_MIB * MIB:
            _log.warning("pool.missing", reason="the host has too little space")
            return False
        return True

    def _size(self) -> int:
        """Bytes it shall have: what the settings say, else all that is free now."""
        if isinstance(self.wanted, int):
            return self.wanted * MIB
        return shutil.disk_usage(self.state_dir).free // MIB * MIB

    def _make(self) -> None:
        size = self._size()
        if size < LEAST_MIB * MIB:
            raise NoSpace(f"the pool needs {LEAST_MIB} MiB below {self.state_dir}")
        draft = self.file.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(descriptor, size)
        finally:
            os.close(descriptor)
        try:
            _run(MKFS, "-q", "-K", "-s", "size=4096", "-m", "reflink=1", str(draft))
            draft.rename(self.file)
        finally:
            draft.unlink(missing_ok=True)
        _log.info("pool.made", mib=size // MIB)

    def _mount(self) -> None:
        self.point.mkdir(mode=0o700, exist_ok=True)
        try:
            with loop.attached(self.file) as device:
                kernel.mount(device, self.point, "xfs", _FLAGS, _OPTIONS)
        except OSError as error:
            raise NotReady(
                f"the pool {self.file} cannot be mounted: {error}; disks and snapshots are in it"
            ) from error
        self.point.chmod(0o700)

    def _grow(self) -> None:
        """Make it as large as the settings say, when that is more; hot."""
        if not isinstance(self.wanted, int) or self.file.stat().st_size >= self._size():
            return
        os.truncate(self.file, self._size())
        for device, file in loop.devices(self.state_dir).items():
            if file == self.file:
                loop.resized(device)
        _run("xfs_growfs", str(self.point))
        _log.info("pool.grown", mib=self._size() // MIB)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        raise NotReady(
            f"{command[0]} cannot be run ({error}): apt-get install xfsprogs, or set "
            "storage.pool to off"
        ) from error
    if done.returncode != 0:
        reason = done.stderr[-1000:].decode(errors="replace").strip()
        raise NotReady(f"{command[0]} failed: {reason}")
