"""LXD beside us in the same run: a private daemon without a network of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon import PeerMissingError, running

IMAGE = "bastide-bench"
_METADATA = """architecture: x86_64
creation_date: 1
properties: {description: the files of debian-12}
"""
_PRESEED = """storage_pools: [{name: default, driver: dir}]
profiles:
- name: default
  devices: {root: {path: /, pool: default, type: disk}}
"""


class Lxd:
    """A daemon with one image, driven through its own command line."""

    def __init__(self, place: Path) -> None:
        # What its programs are started with.
        self.environment = {**os.environ, "LXD_DIR": str(place), "LXD_CONF": f"{place}/client"}

    def __call__(self, *args: str, told: str | None = None) -> str:
        """Run `lxc ARGS`, or another program of LXD's named by a path; what it prints."""
        argv = args if args[0].startswith("lxd") else ("lxc", *args)
        done = subprocess.run(
            argv, input=told or "", capture_output=True, text=True, check=True, timeout=120,
            env=self.environment,
        )  # fmt: skip
        return done.stdout.strip()

    def launch(self, name: str, memory_mb: int, cpus: float) -> None:
        """Create and start a container that sleeps."""
        self(
            "launch", IMAGE, name, "--config", f"limits.memory={memory_mb}MiB",
            "--config", f"limits.cpu.allowance={cpus * 100:.0f}ms/100ms",
            "--config", "raw.lxc=lxc.init.cmd = /bin/sleep infinity",
        )  # fmt: skip


@contextmanager
def lxd(root: Path) -> Iterator[Lxd]:
    """A private daemon with an image made of the files below `root`.

    Raises:
        PeerMissingError: LXD is not installed (`apt-get install lxd`), or does not start here.
    """
    daemon = shutil.which("lxd")
    if daemon is None or shutil.which("lxc") is None:
        raise PeerMissingError("no lxd here: apt-get install lxd")
    with tempfile.TemporaryDirectory(prefix="bastide-lxd-", dir="/var/tmp") as base:
        place = Path(base)
        place.chmod(0o711)
        found = Lxd(place)
        argv = [daemon, "--group", "root"]
        with running(argv, place, lambda: found("info"), found.environment):
            found("lxd", "init", "--preseed", told=_PRESEED)
            found("image", "import", str(_image(root, place)), "--alias", IMAGE)
            yield found


def _image(root: Path, place: Path) -> Path:
    """A unified image file of these files."""
    (place / "metadata.yaml").write_text(_METADATA)
    archive = place / "image.tar"
    subprocess.run(
        ["tar", "-C", str(place), "-cf", str(archive), "metadata.yaml"], check=True
    )  # fmt: skip
    subprocess.run(
        ["tar", "-C", str(root), "--one-file-system", "--transform", "s,^\\.,rootfs,S",
         "-rf", str(archive), "."],
        check=True,
    )  # fmt: skip
    return archive
