"""Long operations on a workspace: what is being done and how far it is.

Phases are those of `provisioning.phase` (spec control-plane 3.2).
"""

from __future__ import annotations

from enum import StrEnum


class OperationKind(StrEnum):
    """What is done to the workspace."""

    PROVISION = "provision"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    REINSTALL = "reinstall"
    PAUSE = "pause"
    RESUME = "resume"
    RESIZE = "resize"
    SNAPSHOT = "snapshot"
    RESTORE = "restore"
    ARCHIVE = "archive"
    UNPACK = "unpack"
    DESTROY = "destroy"
    DELETE = "delete"


ANEW = frozenset(
    {
        OperationKind.START,
        OperationKind.RESTART,
        OperationKind.REINSTALL,
        OperationKind.RESTORE,
    }
)
"""What lets a workspace that is there run anew, whatever it did before."""


class OperationState(StrEnum):
    """How far it is. `done` and `failed` are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


UNFINISHED = (OperationState.QUEUED, OperationState.RUNNING)
FINISHED = (OperationState.DONE, OperationState.FAILED)


class Phase(StrEnum):
    """The step a person is told about."""

    QUEUED = "queued"
    PREPARING = "preparing"
    STARTING = "starting"
    INITIALIZING = "initializing"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"
