"""QEMU laid out as the root of a jail: the program, its loader, libraries and firmware.

A guest that takes over its emulator finds nothing else there. It is Debian's own, copied from the
package that the host keeps up to date; a newer package makes a newer copy.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from bastide.node.machines.microvm.program import (
    BINARY,
    FIRMWARE,
    FLOOR,
    HOME,
    INITRD,
    LAYOUT,
    LIBRARIES,
    MODULES,
    VMLINUX,
    read_version,
)
from bastide.prepare.archive import PrepareError, run
from bastide.prepare.link import point

PROGRAM = Path("/usr/bin/qemu-system-x86_64")
_BLOBS = (
    Path("/usr/share/qemu/bios-microvm.bin"),
    Path("/usr/share/qemu/pvh.bin"),
    Path("/usr/share/qemu/linuxboot_dma.bin"),
)
_MODULE_HOME = Path("/usr/lib/x86_64-linux-gnu/qemu")
_MODULES = ("accel-tcg-x86_64.so",)
"""What Debian's qemu loads by name; emulation itself is one of them."""
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_POINTS = ("dev", "proc", str(Path(VMLINUX).parent))


def ensure_qemu(state_dir: Path, say: Callable[[str], None]) -> Path:
    """Have the emulator's root and return its path.

    Raises:
        PrepareError: the host has no qemu, or one this version cannot use.
    """
    if not PROGRAM.exists():
        raise PrepareError(f"{PROGRAM} is missing: apt-get install qemu-system-x86")
    home = state_dir.absolute() / "runtime"
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    linked = run(["ldd", PROGRAM])
    files = [PROGRAM, *(Path(found) for found in _LIBRARY.findall(linked))]
    final = home / f"{HOME}-{_digest(files)}"
    if not final.is_dir():
        say("microVMs: laying out qemu")
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=home) as scratch:
            ready = Path(scratch) / "ready"
            _lay_out(files, ready)
            try:
                ready.rename(final)
            except OSError:
                if not final.is_dir():  # else somebody else was faster
                    raise
    point(home / HOME, final.name)  # others stay: a machine may run from them
    version = read_version(final)
    if version is None or not version.at_least(FLOOR):
        found = version.text if version else "one that does not start"
        raise PrepareError(f"qemu {FLOOR} or newer is needed, the host has {found}")
    say(f"microVMs: qemu {version.text} is ready")
    return home / HOME


def _lay_out(files: list[Path], ready: Path) -> None:
    for name in (Path(BINARY).parent, LIBRARIES, MODULES, FIRMWARE, *_POINTS):
        (ready / name).mkdir(mode=0o755, parents=True)
    program, *libraries = files
    loader = next((path for path in libraries if path.name.startswith("ld-linux")), None)
    if loader is None:
        raise PrepareError("qemu is linked in a way this version does not know")
    for path in libraries:
        shutil.copy(path, ready / LIBRARIES / path.name)
        (ready / LIBRARIES / path.name).chmod(0o755)
    shutil.copy(program, ready / BINARY)
    run(
        [
            *("patchelf", "--set-interpreter", f"/{LIBRARIES}/{loader.name}"),
            *("--force-rpath", "--set-rpath", f"/{LIBRARIES}", ready / BINARY),
        ]
    )
    for name in _MODULES:
        if (_MODULE_HOME / name).exists():  # else it is built in
            shutil.copy(_MODULE_HOME / name, ready / MODULES / name)
    for blob in _BLOBS:
        if blob.exists() and not (ready / FIRMWARE / blob.name).exists():
            shutil.copy(blob, ready / FIRMWARE / blob.name)
    for name in (VMLINUX, INITRD):
        (ready / name).touch(mode=0o444)
    record = {"program": str(program), "libraries": sorted(path.name for path in libraries)}
    (ready / "qemu.json").write_text(json.dumps(record) + "\n")
    ready.chmod(0o755)


def _digest(files: list[Path]) -> str:
    """What tells one set of files from another: names, sizes and times, as packages set them."""
    told = hashlib.sha256(str(LAYOUT).encode())
    for path in (*files, *(blob for blob in _BLOBS if blob.exists())):
        status = path.stat()
        told.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return told.hexdigest()[:16]
