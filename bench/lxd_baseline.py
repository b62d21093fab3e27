"""LXD beside us in the same run: a private daemon without a network of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docker_baseline import unmount_below

IMAGE = "bastide-bench"
DEADLINE = 60.0
_METADATA = """architecture: x86_64
creation_date: 1
properties: {description: the files of debian-12}
"""
_PRESEED = """storage_pools: [{name: default, driver: dir}]
profiles:
- name: default
  devices: {root: {path: /, pool: default, type: disk}}
"""


class LxdMissingError(Exception):
    """There is no LXD daemon on this host; the text says how to get one."""


class Lxd:
    """A daemon with one image, driven through its own command line."""

    def __init__(self, place: Path) -> None:
        self._environment = {**os.environ, "LXD_DIR": str(place), "LXD_CONF": f"{place}/client"}

    def __call__(self, *args: str, told: str | None = None) -> str:
        """Run `lxc ARGS`, or another program of LXD's named by a path; what it prints."""
        argv = args if args[0].startswith("lxd") else ("lxc", *args)
        done = subprocess.run(
            argv, input=told or "", capture_output=True, text=True, check=True, timeout=120,
            env=self._environment,
        )  # fmt: skip
        return done.stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        """What its programs are started with."""
        return self._environment

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
        LxdMissingError: LXD is not installed (`apt-get install lxd`), or does not start here.
    """
    daemon = shutil.which("lxd")
    if daemon is None or shutil.which("lxc") is None:
        raise LxdMissingError("no lxd here: apt-get install lxd")
    with tempfile.TemporaryDirectory(prefix="bastide-lxd-", dir="/var/tmp") as base:
        place = Path(base)
        place.chmod(0o711)
        found = Lxd(place)
        with (place / "daemon.log").open("wb") as log:
            process = subprocess.Popen(
                [daemon, "--group", "root"], stdout=log, stderr=log, env=found.environment
            )
        try:
            _wait(found, process, place / "daemon.log")
            found("lxd", "init", "--preseed", told=_PRESEED)
            found("image", "import", str(_image(root, place)), "--alias", IMAGE)
            yield found
        finally:
            process.terminate()
            process.wait()
            unmount_below(place)


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


def _wait(found: Lxd, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            found("info")
        except subprocess.CalledProcessError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise LxdMissingError(f"lxd did not start: {log.read_text()}") from None
            time.sleep(0.05)
        else:
            return
