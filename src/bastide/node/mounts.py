"""What is mounted on the host below a directory, as the kernel lists it."""

from __future__ import annotations

import re
from pathlib import Path

_ESCAPE = re.compile(r"\\([0-7]{3})")


def mounted(under: Path) -> list[Path]:
    """Mount points at or below `under`, in the order they were mounted; stacked ones repeat."""
    points: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = _point(line)
        if point.is_relative_to(under):
            points.append(point)
    return points


def read_only(under: Path, kind: str) -> list[Path]:
    """Mount points below `under` whose file system is a `kind` that cannot be written any more."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for_good = re.compile(rf" - {kind} \S+ (ro(,\S*)?|\S*,(emergency_ro|shutdown)(,\S*)?)$")
    points = (_point(line) for line in lines if for_good.search(line))
    return [point for point in points if point.is_relative_to(under)]


def _point(line: str) -> Path:
    return Path(_ESCAPE.sub(lambda m: chr(int(m.group(1), 8)), line.split(" ", 5)[4]))


def is_mounted(point: Path) -> bool:
    """Whether something is mounted exactly there."""
    return point in mounted(point)
