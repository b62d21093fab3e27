"""Which version of a program there is, in its own words."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 30.0


@dataclass(frozen=True)
class ProgramVersion:
    """The version of a program, as it says it itself."""

    text: str
    numbers: tuple[int, ...]

    def at_least(self, floor: str) -> bool:
        """Whether it is `floor`, such as `1.3.6`, or newer."""
        return self.numbers >= tuple(int(part) for part in floor.split("."))


def words(*command: Path | str) -> str | None:
    """What `COMMAND --version` prints, or None when it is not there or does not start. Blocks."""
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
    return done.stdout
