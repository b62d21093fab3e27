"""A system of busybox alone: Debian's static program, a link for each command, two accounts."""

from __future__ import annotations

import shutil
from pathlib import Path

from bastide.domain.image import ImageRecipe
from bastide.prepare.archive import PrepareError, apt_get, run

_DIRECTORIES = ("bin", "sbin", "usr/bin", "usr/sbin", "etc", "root", "home", "var/log", "var/tmp",
                "tmp", "var/lib", "var/cache")  # fmt: skip
_ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"


def lay_out(recipe: ImageRecipe, tree: Path, scratch: Path) -> tuple[str, ...]:
    """Make the tree; names and versions of what is in it.

    Raises:
        PrepareError: the package cannot be had.
    """
    place = scratch / "packages"
    place.mkdir()
    # nobody else may look into the scratch directory, apt's own user neither
    apt = [*apt_get(place, recipe.suite), "-o", "APT::Sandbox::User=root"]
    run([*apt, "update"])
    run([*apt, "download", *recipe.packages], cwd=place)
    unpacked = place / "unpacked"
    software = []
    for package in sorted(place.glob("*.deb")):
        run(["dpkg-deb", "-x", package, unpacked])
        shown = run(["dpkg-deb", "--show", "--showformat", "${Package} ${Version}", package])
        software.append(_upstream(shown))
    program = unpacked / "bin/busybox"
    if not program.is_file():
        raise PrepareError(
            "Debian's busybox-static is laid out in a way this version does not know"
        )
    for name in _DIRECTORIES:
        (tree / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(program, tree / "bin/busybox")
    for path in run([program, "--list-full"]).split():
        link = tree / path
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/bin/busybox")
    (tree / "root").chmod(0o700)
    (tree / "etc/passwd").write_text(_ACCOUNTS)
    (tree / "etc/group").write_text(_GROUP)
    return tuple(software)


def _upstream(shown: str) -> str:
    """`name 1:2.3-4+deb` as `name 2.3`."""
    name, _, version = shown.partition(" ")
    return f"{name} {version.rpartition(':')[2].partition('-')[0]}"
