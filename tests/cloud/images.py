"""Images of the tests: small ones that share nothing with Debian's.

`busybox-musl` is what people know from Alpine: busybox for a user land, musl for a C library, no
bash and no Python. `single-binary` is one static program and nothing else: no shell where
programs look for one, no C library, no accounts.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bastide.domain.image import ImageManifest, ImageWords
from bastide.node.images.packing import pack, read_manifest
from bastide.node.layout import MOUNT_POINTS

BUSYBOX = Path("/bin/busybox")
MUSL = Path("/lib/x86_64-linux-musl/libc.so")
ALPINE_LIKE, SINGLE = "busybox-musl", "single-binary"
BUILD = 1  # raise it when the trees change


def alpine_like(tree: Path) -> None:
    """Busybox with a link for each of its applets, musl with its loader, accounts of Alpine."""
    for name in ("bin", "sbin", "usr/bin", "usr/sbin", "lib", "root", "tmp", "home", "var/tmp"):
        (tree / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    shutil.copy(MUSL, tree / "lib/libc.musl-x86_64.so.1")
    (tree / "lib/ld-musl-x86_64.so.1").symlink_to("libc.musl-x86_64.so.1")
    # `busybox --install -s` would link to the path it was started by
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        place = tree / "bin" / applet
        if not place.exists():
            place.symlink_to("busybox")
    (tree / "root").chmod(0o700)
    (tree / "tmp").chmod(0o1777)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/ash\n")
    (tree / "etc/group").write_text("root:x:0:\n")


def single(tree: Path) -> None:
    """One static program."""
    shutil.copy(BUSYBOX, tree / "busybox")


TREES: dict[str, Callable[[Path], None]] = {ALPINE_LIKE: alpine_like, SINGLE: single}


def ensure(image: str, state_dir: Path) -> ImageManifest:
    """Have one of these images among those of a node."""
    home = state_dir / "images"
    key = hashlib.sha256(f"{BUILD}".encode() + BUSYBOX.read_bytes() + MUSL.read_bytes())
    present = read_manifest(home, image)
    if present is not None and present.key == key.hexdigest():
        return present
    words = ImageWords(
        id=image, image=f"bastide/{image}:test", label=image, desc="an image of the tests",
        category="os", distribution=image, version="1", family="busybox",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix=f"build-{os.getpid()}-", dir=home) as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir(mode=0o755)
        for name in MOUNT_POINTS:
            (tree / name).mkdir()
        TREES[image](tree)
        return pack(tree, home, image, key.hexdigest(), words=words)
