"""Docker beside us in the same run: a private daemon that touches nothing of the host's network."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE = "bastide-bench"
DEADLINE = 60.0


class DockerMissingError(Exception):
    """There is no Docker daemon on this host; the text says how to get one."""


class Docker:
    """A daemon with one image, driven through its own command line."""

    def __init__(self, socket: Path) -> None:
        self._command = ["docker", "-H", f"unix://{socket}"]

    def __call__(self, *args: str) -> str:
        """Run `docker ARGS`; what it prints."""
        done = subprocess.run(
            [*self._command, *args], capture_output=True, text=True, check=True, timeout=120
        )
        return done.stdout.strip()

    def run_and_exec(self, memory_mb: int, cpus: float) -> float:
        """Milliseconds from `docker run` to the end of a first `docker exec`, removed after."""
        start = time.perf_counter()
        name = self(
            "run", "--detach", "--network", "none", "--memory", f"{memory_mb}m", "--cpus",
            str(cpus), IMAGE, "/bin/sleep", "infinity",
        )  # fmt: skip
        try:
            self("exec", name, "/bin/true")
            return (time.perf_counter() - start) * 1000
        finally:
            self("rm", "--force", name)

    def exec_true(self, container: str) -> float:
        """Milliseconds of one `docker exec true`."""
        start = time.perf_counter()
        self("exec", container, "/bin/true")
        return (time.perf_counter() - start) * 1000


@contextmanager
def docker(root: Path) -> Iterator[Docker]:
    """A private daemon with an image made of the files below `root`.

    Raises:
        DockerMissingError: Docker is not installed (`apt-get install docker.io`).
    """
    daemon = shutil.which("dockerd")
    if daemon is None or shutil.which("docker") is None:
        raise DockerMissingError("no dockerd here: apt-get install docker.io")
    with tempfile.TemporaryDirectory(prefix="bastide-docker-", dir="/var/tmp") as base:
        place = Path(base)
        socket = place / "docker.sock"
        with (place / "daemon.log").open("wb") as log:
            process = subprocess.Popen(
                [daemon, "--data-root", f"{place}/data", "--exec-root", f"{place}/exec",
                 "--pidfile", f"{place}/pid", "-H", f"unix://{socket}", "--iptables=false",
                 "--ip-masq=false", "--bridge=none"],
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            found = Docker(socket)
            _wait(found, process, place / "daemon.log")
            archive = subprocess.Popen(
                ["tar", "--one-file-system", "-C", str(root), "-c", "."], stdout=subprocess.PIPE
            )
            subprocess.run(
                ["docker", "-H", f"unix://{socket}", "import", "-", IMAGE],
                stdin=archive.stdout, check=True, capture_output=True,
            )  # fmt: skip
            archive.wait()
            yield found
        finally:
            process.terminate()
            process.wait()
            unmount_below(place)


def _wait(found: Docker, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            found("version")
        except subprocess.CalledProcessError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise DockerMissingError(f"dockerd did not start: {log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


def unmount_below(place: Path) -> None:
    """The daemon leaves a mount or two behind."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if point.startswith(f"{place}{os.sep}"):
            subprocess.run(["umount", "--lazy", point], check=False)
