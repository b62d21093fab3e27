"""Docker beside us in the same run: a private daemon that touches nothing of the host's network."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon import PeerMissingError, running

IMAGE = "bastide-bench"


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
        PeerMissingError: Docker is not installed (`apt-get install docker.io`), or does not start.
    """
    daemon = shutil.which("dockerd")
    if daemon is None or shutil.which("docker") is None:
        raise PeerMissingError("no dockerd here: apt-get install docker.io")
    with tempfile.TemporaryDirectory(prefix="bastide-docker-", dir="/var/tmp") as base:
        place = Path(base)
        socket = place / "docker.sock"
        found = Docker(socket)
        argv = [
            daemon, "--data-root", f"{place}/data", "--exec-root", f"{place}/exec",
            "--pidfile", f"{place}/pid", "-H", f"unix://{socket}", "--iptables=false",
            "--ip-masq=false", "--bridge=none",
        ]  # fmt: skip
        with running(argv, place, lambda: found("version")):
            archive = subprocess.Popen(
                ["tar", "--one-file-system", "-C", str(root), "-c", "."], stdout=subprocess.PIPE
            )
            subprocess.run(
                ["docker", "-H", f"unix://{socket}", "import", "-", IMAGE],
                stdin=archive.stdout, check=True, capture_output=True,
            )  # fmt: skip
            archive.wait()
            yield found
