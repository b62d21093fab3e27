"""The memory of a guest: to a file and back, and how much of it is in use on the host."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from bastide.node.errors import BootFailed
from bastide.node.machines.microvm.qmp import Qmp

FILE = "memory"

_HANDLE = "memory"
_SAVED_BEFORE = "postmigrate"
_TURN = 0.02
_DEADLINE = 600.0
_NO_LIMIT = 2**40
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


async def save(qmp: Qmp, directory: Path) -> None:
    """Write memory and devices of a guest that stands still to `directory/memory`.

    Raises:
        BootFailed: it cannot be written; the guest can go on.
    """
    if (await qmp.run("query-status")).get("status") == _SAVED_BEFORE:
        # an emulator that has saved its guest has handed it over, until that guest has gone on
        await qmp.run("cont")
        await qmp.run("stop")
    descriptor = os.open(directory / FILE, _NEW, 0o600)
    try:
        await qmp.run("getfd", fdname=_HANDLE, descriptors=(descriptor,))
    finally:
        os.close(descriptor)
    await qmp.run("migrate-set-parameters", max_bandwidth=_NO_LIMIT)
    await qmp.run("migrate", uri=f"fd:{_HANDLE}")
    await _moved(qmp, "saved")


async def load(qmp: Qmp, directory: Path) -> None:
    """Read them into an emulator that was started for it; the guest stands still afterwards.

    Raises:
        BootFailed: they do not fit.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(directory / FILE, flags)
    except OSError as error:
        raise BootFailed(f"the saved memory cannot be read: {error.strerror}") from error
    try:
        await qmp.run("getfd", fdname=_HANDLE, descriptors=(descriptor,))
    finally:
        os.close(descriptor)
    await qmp.run("migrate-incoming", uri=f"fd:{_HANDLE}")
    await _moved(qmp, "restored")


async def _moved(qmp: Qmp, what: str) -> None:
    try:
        async with asyncio.timeout(_DEADLINE):
            while (state := await qmp.run("query-migrate")).get("status") != "completed":
                if state.get("status") in {"failed", "cancelled"}:
                    reason = str(state.get("error-desc", "the emulator gives no reason"))
                    raise BootFailed(f"the memory cannot be {what}: {reason[:300]}")
                await asyncio.sleep(_TURN)
    except TimeoutError:
        raise BootFailed(f"the memory was not {what} in {_DEADLINE:.0f} s") from None


def ram_in_use(pid: int, size: int) -> int:
    """Bytes of the host's memory that stand behind the guest's `size` bytes.

    That is what the guest has ever touched and not given back. The mapping is known by its size.
    Raises OSError when the process is gone.
    """
    used, inside = 0, False
    with Path(f"/proc/{pid}/smaps").open() as lines:
        for line in lines:
            mapping = _MAPPING.match(line)
            if mapping:
                inside = int(mapping[2], 16) - int(mapping[1], 16) == size
            elif inside and line.startswith("Rss:"):
                used = max(used, int(line.split()[1]) * 1024)
    return used
