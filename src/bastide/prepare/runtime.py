"""The container runtime: runc from Debian's newest suite, with its own loader and libraries.

The runc of a released Debian can be older than what is safe (CVE-2025-31133, CVE-2026-41579:
1.3.6 is the floor, field notes 5.2). The newer one needs newer libraries than the host has, so
they are kept beside it and the program is pointed at them; nothing of the host changes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bastide.node.machines.runc import CURRENT, FLOOR, read_version
from bastide.prepare.archive import PrepareError, apt_get, run

_SUITE = "sid"
_PACKAGES = ("runc", "libc6", "libseccomp2")
_LAYOUT = 1  # raise it when the layout of the directory changes


@dataclass(frozen=True)
class _Architecture:
    triplet: str
    loader: str


_ARCHITECTURES = {
    "amd64": _Architecture("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
    "arm64": _Architecture("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
}


def ensure_runtime(state_dir: Path, say: Callable[[str], None]) -> Path:
    """Have a safe runc under `state_dir/runtime` and return its path.

    A runtime that is there, starts and is new enough is kept. `say` gets lines of progress.

    Raises:
        PrepareError: it cannot be fetched, or what the archive has is too old.
    """
    home = state_dir.absolute() / "runtime"
    program = home / CURRENT / "runc"
    version = read_version(program)
    if version and version.safe:
        say(f"runtime: runc {version.text} is there")
        return program
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    say(f"runtime: fetching runc from Debian {_SUITE}")
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=home) as scratch:
        built = _fetch(Path(scratch), home, say)
    _point(home, built)
    version = read_version(program)
    if version is None or not version.safe:
        found = version.text if version else "one that does not start"
        raise PrepareError(f"the runtime must be runc {FLOOR} or newer, the archive gave {found}")
    say(f"runtime: runc {version.text} is ready")
    return program


def _fetch(scratch: Path, home: Path, say: Callable[[str], None]) -> Path:
    """Download, unpack and patch; the finished directory in `home`."""
    machine = run(["dpkg", "--print-architecture"]).strip()
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None:
        raise PrepareError(f"no runtime is prepared for {machine}: amd64 and arm64 are known")
    apt = apt_get(scratch, _SUITE)
    run([*apt, "update"])
    downloads = scratch / "packages"
    downloads.mkdir()
    # apt drops its privileges to fetch, and must be able to write here when it does
    shutil.chown(downloads, user="_apt")
    run([*apt, "download", *(f"{name}/{_SUITE}" for name in _PACKAGES)], cwd=downloads)
    tree = scratch / "tree"
    for package in sorted(downloads.glob("*.deb")):
        say(f"runtime: unpacking {package.name}")
        run(["dpkg-deb", "-x", package, tree])
    return _lay_out(tree, scratch / "ready", home, architecture)


def _lay_out(tree: Path, ready: Path, home: Path, architecture: _Architecture) -> Path:
    libraries = ready / "lib"
    libraries.mkdir(parents=True)
    shutil.copy2(tree / "usr/sbin/runc", ready / "runc")
    source = tree / "usr/lib" / architecture.triplet
    for name in ("libc.so.6", "libseccomp.so.2", architecture.loader):
        shutil.copy2(source / name, libraries / name, follow_symlinks=True)
    loader = libraries / architecture.loader
    output = run([loader, "--library-path", libraries, ready / "runc", "--version"])
    version = output.splitlines()[0].split()[-1]
    final = home / f"runc-{version}-{_LAYOUT}"
    run(
        [
            *("patchelf", "--set-interpreter", final / "lib" / architecture.loader),
            *("--force-rpath", "--set-rpath", final / "lib", ready / "runc"),
        ]
    )
    (ready / "runtime.json").write_text(json.dumps({"runc": version, "suite": _SUITE}) + "\n")
    for path in (ready, libraries):
        path.chmod(0o755)
    shutil.rmtree(final, ignore_errors=True)
    ready.rename(final)
    return final


def _point(home: Path, built: Path) -> None:
    """Make `current` name the new directory in one step, and drop the others."""
    link = home / f".{CURRENT}"
    link.unlink(missing_ok=True)
    link.symlink_to(built.name)
    link.replace(home / CURRENT)
    for other in home.glob("runc-*"):
        if other != built:
            shutil.rmtree(other, ignore_errors=True)
