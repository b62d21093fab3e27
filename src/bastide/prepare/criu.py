"""CRIU, which takes and brings back the memory of machines, with its own loader and libraries.

The criu of Debian 12 does not start on new kernels (it cannot read their vdso); a newer one needs
newer libraries than the host has. So it is kept beside the runtime like runc is, and points to a
loader and libraries of its own: runc finds it by its name in PATH and runs it directly.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from bastide.node.machines.criu import FLOOR, HOME, read_version
from bastide.prepare.archive import PrepareError, apt_get, run

_SUITE = "sid"
_LAYOUT = 1  # raise it when the layout of the directory changes
_LIBRARY = re.compile(r"=> (\S+) \(0x")


def ensure_criu(state_dir: Path, say: Callable[[str], None]) -> Path:
    """Have a working criu under `state_dir/runtime` and return its path.

    One that is there, starts and is new enough is kept. `say` gets lines of progress.

    Raises:
        PrepareError: it cannot be fetched, or what the archive has is too old.
    """
    home = state_dir.absolute() / "runtime"
    program = home / HOME / "criu"
    version = read_version(program)
    if version and version.enough:
        say(f"snapshots: criu {version.text} is there")
        return program
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    say(f"snapshots: fetching criu from Debian {_SUITE}")
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=home) as scratch:
        built = _lay_out(_unpack(Path(scratch)), Path(scratch) / "ready", home)
    _point(home, built)
    version = read_version(program)
    if version is None or not version.enough:
        found = version.text if version else "one that does not start"
        raise PrepareError(f"snapshots need criu {FLOOR} or newer, the archive gave {found}")
    say(f"snapshots: criu {version.text} is ready")
    return program


def _unpack(scratch: Path) -> Path:
    """The package and all it needs, unpacked and not installed."""
    apt = apt_get(scratch, _SUITE)
    run([*apt, "update"])
    run([*apt, "--no-install-recommends", "--download-only", "--yes", "install", "criu"])
    tree = scratch / "tree"
    for package in sorted((scratch / "cache/archives").glob("*.deb")):
        run(["dpkg-deb", "-x", package, tree])
    return tree


def _lay_out(tree: Path, ready: Path, home: Path) -> Path:
    """`criu` and `lib/` with exactly what it is linked with; the finished directory in `home`."""
    libraries = ready / "lib"
    libraries.mkdir(parents=True)
    program = tree / "usr/sbin/criu"
    loader = next(iter(sorted((tree / "usr").glob("lib*/ld-linux-*.so.*"))), None)
    sources = sorted(tree.glob("usr/lib/*-linux-gnu"))
    if loader is None or len(sources) != 1:
        raise PrepareError("Debian's criu is laid out in a way this version does not know")
    linked = run([loader, "--library-path", sources[0], "--list", program])
    for path in {*map(Path, _LIBRARY.findall(linked)), loader}:
        if not path.resolve().is_relative_to(tree.resolve()):
            raise PrepareError(f"criu needs {path.name}, which its packages do not bring")
        shutil.copy2(path, libraries / path.name, follow_symlinks=True)
    shutil.copy2(program, ready / "criu")
    version = read_version(libraries / loader.name, "--library-path", libraries, program)
    if version is None:
        raise PrepareError("criu does not start on this host")
    final = home / f"criu-{version.text}-{_LAYOUT}"
    run(
        [
            *("patchelf", "--set-interpreter", final / "lib" / loader.name),
            *("--force-rpath", "--set-rpath", final / "lib", ready / "criu"),
        ]
    )
    (ready / "criu.json").write_text(json.dumps({"criu": version.text, "suite": _SUITE}) + "\n")
    for path in (ready, libraries):
        path.chmod(0o755)
    shutil.rmtree(final, ignore_errors=True)
    ready.rename(final)
    return final


def _point(home: Path, built: Path) -> None:
    """Make `criu` name the new directory in one step, and drop the others."""
    link = home / f".{HOME}"
    link.unlink(missing_ok=True)
    link.symlink_to(built.name)
    link.replace(home / HOME)
    for other in home.glob("criu-*"):
        if other != built:
            shutil.rmtree(other, ignore_errors=True)
