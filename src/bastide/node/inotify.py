"""Inotify for many workspaces.

The kernel counts what every user namespace holds against the user who made it, which for all
workspaces is root: with its default of 128 instances the first few workspaces would leave none
for the others. The memory behind instances and watches is charged to each workspace's own memory
limit, so that is what bounds them here.
"""

from __future__ import annotations

from pathlib import Path

LIMITS = {"max_user_instances": 2**24, "max_user_watches": 2**30}
ROOT = Path("/proc/sys/fs/inotify")


def shortfall(root: Path = ROOT) -> list[str]:
    """The sysctls that are below what many workspaces need, as `name=value` to set."""
    return [
        f"fs.inotify.{name}={wanted}"
        for name, wanted in LIMITS.items()
        if int((root / name).read_text()) < wanted
    ]


def widen(root: Path = ROOT) -> None:
    """Raise the host's limits; never lowers one. Raises OSError when they may not be set."""
    for name, wanted in LIMITS.items():
        file = root / name
        if int(file.read_text()) < wanted:
            file.write_text(str(wanted))
