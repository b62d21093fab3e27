"""Whether this host's processor really runs guests: tried with one, not guessed from a device.

A `/dev/kvm` that opens may still belong to a hypervisor in which an ordinary kernel never gets
anywhere (probe section 4a). What was found counts until the host, its emulator or the guest kernel
is another.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bastide.node.machines.microvm.kernel import Kernel
from bastide.node.machines.microvm.program import BINARY, FIRMWARE, LIBRARIES, MODULES
from bastide.node.machines.microvm.qemu import TRIAL, trial_argv

DEADLINE = 8.0
"""Seconds; hardware takes less than one."""

_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CACHE = "hardware.json"
_MOST_SHOWN = 300


@dataclass(frozen=True)
class Hardware:
    """`usable` says whether guests may run on it, `reason` why, for people."""

    usable: bool
    reason: str


def try_hardware(runtime: Path, home: Path, kernel: Kernel) -> Hardware:
    """Boot a guest of no consequence on /dev/kvm, unless it is known how that ends. Blocks.

    `runtime` is where the finding is kept, `home` the emulator's root.
    """
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        there = "may not be used" if _DEVICE.exists() else "is not there"
        return Hardware(usable=False, reason=f"{_DEVICE} {there}")
    key = [_BOOT_ID.read_text().strip(), home.resolve().name, kernel.record.digest]
    cache = runtime / _CACHE
    known = _read(cache)
    if known is not None and known[0] == key:
        return known[1]
    found = _boot(home, kernel)
    draft = cache.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"key": key, "usable": found.usable, "reason": found.reason}))
    draft.replace(cache)
    return found


def known_hardware(runtime: Path) -> Hardware | None:
    """What was found since the host was started; None when it was not tried."""
    if not _DEVICE.exists():
        return Hardware(usable=False, reason=f"{_DEVICE} is not there")
    known = _read(runtime / _CACHE)
    if known is None or known[0][:1] != [_BOOT_ID.read_text().strip()]:
        return None
    return known[1]


def _read(cache: Path) -> tuple[list[str], Hardware] | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(cache.read_text())
        found = Hardware(usable=bool(known["usable"]), reason=str(known["reason"]))
        return list(known["key"]), found
    return None


def _boot(home: Path, kernel: Kernel) -> Hardware:
    loader = next(iter(sorted((home / LIBRARIES).glob("ld-linux-*.so.*"))))
    command = [
        *("/usr/bin/prlimit", "--core=0"),  # some hypervisors make it abort
        *(str(loader), "--library-path", str(home / LIBRARIES), str(home / BINARY)),
        *("-L", str(home / FIRMWARE), *trial_argv(kernel.vmlinux, kernel.initrd)),
    ]
    try:
        done = subprocess.run(
            command,
            env={"QEMU_MODULE_DIR": str(home / MODULES)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Hardware(
            usable=False, reason=f"a guest on {_DEVICE} did not come up in {DEADLINE:.0f} s"
        )
    except OSError as error:
        return Hardware(usable=False, reason=f"the emulator cannot be tried: {error.strerror}")
    if TRIAL.encode() in done.stdout:
        return Hardware(usable=True, reason=f"a guest came up on {_DEVICE}")
    words = (done.stderr or done.stdout).decode(errors="replace").split()
    return Hardware(
        usable=False, reason=f"a guest on {_DEVICE} failed: {' '.join(words)[-_MOST_SHOWN:]}"
    )
