"""What a user may want of a workspace (spec control-plane 5.1)."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Whether a workspace has a lease."""

    PERMANENT = "permanent"
    TEMPORARY = "temporary"


class DesiredState(StrEnum):
    """What the user wants of a workspace."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"


WANTED_UP = frozenset({DesiredState.RUNNING, DesiredState.PAUSED})
"""A paused workspace keeps its memory, so it counts as running."""
