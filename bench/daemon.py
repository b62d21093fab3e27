"""A private daemon of another program, measured beside us in the same run."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

DEADLINE = 60.0


class PeerMissingError(Exception):
    """What is to be measured beside us is not to be had on this host; the text says why."""


@contextmanager
def running(
    argv: Sequence[str],
    place: Path,
    ask: Callable[[], object],
    environment: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """A daemon that keeps all it has below `place`, from when it answers to the end of the block.

    `ask` runs a command of its client, which fails until then.

    Raises:
        PeerMissingError: it does not start here.
    """
    log = place / "daemon.log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=environment)
    try:
        if not _answers(ask, process):
            name = Path(argv[0]).name
            raise PeerMissingError(f"{name} did not start: {log.read_text()}")
        yield
    finally:
        process.terminate()
        process.wait()
        _unmount_below(place)


def _answers(ask: Callable[[], object], process: subprocess.Popen[bytes]) -> bool:
    """Whether it does, as soon as it does; not if it ends or takes too long."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            ask()
        except subprocess.CalledProcessError:
            if process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def _unmount_below(place: Path) -> None:
    """The daemon leaves a mount or two behind."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if point.startswith(f"{place}{os.sep}"):
            subprocess.run(["umount", "--lazy", point], check=False)
