"""What is mounted on the host below a directory, as the kernel lists it."""

from __future__ import annotations

import re
from pathlib import Path

_ESCAPE = re.compile(r"\\([0-7]{3})")


def mounted(under: Path) -> list[Path]:
    """Mount points at or below `under`, in the order they were mounted; stacked ones repeat."""
    points: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(_ESCAPE.sub(lambda m: chr(int(m.group(1), 8)), line.split(" ", 5)[4]))
        if point.is_relative_to(under):
            points.append(point)
    return points


def is_mounted(point: Path) -> bool:
    """Whether something is mounted exactly there."""
    return point in mounted(point)
