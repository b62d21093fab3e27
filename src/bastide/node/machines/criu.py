"""CRIU as the node finds it: which version, and how runc is told of it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

FLOOR = "4.2"
"""It takes pidfds, which agent and tini hold, and sockets of Linux 6.16 and newer, which have no
SO_PASSCRED any more: 4.1 gives up on every listening port there."""
HOME = "criu"
"""Below `state_dir/runtime`: the directory with the program `criu` in it."""
_TIMEOUT = 10.0


@dataclass(frozen=True)
class Version:
    """The version of a criu, as it says it itself."""

    text: str
    numbers: tuple[int, ...]

    @property
    def enough(self) -> bool:
        """At or above the floor."""
        return self.numbers >= tuple(int(part) for part in FLOOR.split("."))


def read_version(*command: Path | str) -> Version | None:
    """What a criu says of itself, or None when it is not there or does not start. Blocks."""
    try:
        done = subprocess.run(
            [*command, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"^Version: (\d+(?:\.\d+)*)", done.stdout, re.MULTILINE)
    if match is None:
        return None
    return Version(match.group(1), tuple(int(part) for part in match.group(1).split(".")))
