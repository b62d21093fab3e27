"""The emulator of this node: where it is, and which version."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from bastide.node.machines.version import ProgramVersion, words

HOME = "qemu"
"""Below `state_dir/runtime`: a directory that is the whole root of every jail."""
LAYOUT = 3
"""Raised when that directory is laid out in another way."""
BINARY, LIBRARIES, MODULES, FIRMWARE = "bin/qemu", "lib", "modules", "share"
VMLINUX, INITRD = "kernel/vmlinux", "kernel/initrd"
"""Where a jail has the guest's kernel and initramfs: empty files to mount them on."""
FLOOR = "7.2"


def read_version(home: Path) -> ProgramVersion | None:
    """What the emulator below `home` says of itself, or None. Blocks."""
    loader = next(iter(sorted((home / LIBRARIES).glob("ld-linux-*.so.*"))), None)
    if loader is None:
        return None
    told = words(loader, "--library-path", home / LIBRARIES, home / BINARY) or ""
    match = re.search(r"version (\d+(?:\.\d+)*)", told)
    if match is None:
        return None
    return ProgramVersion(match.group(1), tuple(int(part) for part in match.group(1).split(".")))


class Qemu:
    """QEMU as `bastide prepare` laid it out below `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.version: ProgramVersion | None = None

    async def find(self) -> None:
        """Learn the version; without this nothing is started."""
        self.version = await asyncio.to_thread(read_version, self.home)

    @property
    def lacking(self) -> str | None:
        """Why there is nothing to work with; None when there is."""
        if self.version is None:
            return "qemu is not prepared: run bastide prepare"
        if not self.version.at_least(FLOOR):
            return f"qemu {self.version.text} is too old, {FLOOR} is needed"
        return None
