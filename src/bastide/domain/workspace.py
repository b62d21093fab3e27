"""What a workspace is doing, what may be asked of it next, and how it is shown.

Desired state (what the owner wants), observed state (what the engine says) and the unfinished
operation are kept apart; everything shown is derived from the three (spec 3.1, 3.2, 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import MachineState
from bastide.domain.operation import OperationKind


class Status(StrEnum):
    """`status` of a workspace on the wire."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    CREATING = "creating"
    STARTING = "starting"
    STOPPING = "stopping"
    ERROR = "error"


_BUSY = {
    OperationKind.PROVISION: Status.CREATING,
    OperationKind.START: Status.STARTING,
    OperationKind.RESTART: Status.STARTING,
    OperationKind.STOP: Status.STOPPING,
    OperationKind.DELETE: Status.STOPPING,
}
_SEEN = {
    MachineState.ABSENT: Status.STOPPED,
    MachineState.STOPPED: Status.STOPPED,
    MachineState.STARTING: Status.STARTING,
    MachineState.RUNNING: Status.RUNNING,
    MachineState.PAUSED: Status.PAUSED,
    MachineState.STOPPING: Status.STOPPING,
    MachineState.FAILED: Status.ERROR,
}
_DOING = {
    OperationKind.PROVISION: "being created",
    OperationKind.START: "starting",
    OperationKind.RESTART: "restarting",
    OperationKind.STOP: "stopping",
    OperationKind.DELETE: "being deleted",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """All that decides what a workspace shows and accepts.

    `doing` is its unfinished operation, `automatic` whether that one was started by Bastide
    itself (a restart after a crash) and so gives way to a person's wish.
    """

    desired: DesiredState
    observed: MachineState
    doing: OperationKind | None = None
    automatic: bool = False
    creation_failed: bool = False

    @property
    def status(self) -> Status:
        """The `status` shown to clients."""
        if self.doing is not None:
            return _BUSY[self.doing]
        if self.creation_failed:
            return Status.ERROR
        return _SEEN[self.observed]

    @property
    def machine_status(self) -> Status:
        """`info.status`: like `status`, without `error`, which that field does not know."""
        return Status.STOPPED if self.status is Status.ERROR else self.status


class Answer(StrEnum):
    """What becomes of a request for an operation."""

    BEGIN = "begin"
    NOTHING = "nothing"
    JOIN = "join"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an operation may begin; `supersede` ends the unfinished one first."""

    answer: Answer
    reason: str = ""
    supersede: bool = False


def judge(kind: OperationKind, now: Condition, *, force: bool = False) -> Verdict:
    """Decide on a request for `kind` in condition `now`; of two conflicting ones the first wins.

    Deleting is possible in every state and supersedes everything; a repeat of what is going on
    joins it; stopping what is stopped and starting what runs have nothing to do (spec 4.2), the
    latter unless forced.
    """
    if now.doing is OperationKind.DELETE or now.desired is DesiredState.DELETED:
        if kind is OperationKind.DELETE:
            return Verdict(Answer.JOIN)
        return Verdict(Answer.REFUSE, "the workspace is being deleted")
    if kind is OperationKind.DELETE:
        return Verdict(Answer.BEGIN, supersede=now.doing is not None)
    if now.doing is None:
        return _judge_idle(kind, now, force=force)
    if now.automatic or now.doing is kind:
        return Verdict(Answer.BEGIN if now.automatic else Answer.JOIN, supersede=now.automatic)
    return Verdict(
        Answer.REFUSE,
        f"the workspace is {_DOING[now.doing]}; wait until that is done and try again",
    )


def _judge_idle(kind: OperationKind, now: Condition, *, force: bool) -> Verdict:
    """The verdict when nothing is going on."""
    if kind is OperationKind.PROVISION:
        if now.creation_failed:
            return Verdict(Answer.BEGIN)
        return Verdict(
            Answer.REFUSE, "only a failed creation can be retried; this workspace was created"
        )
    running = now.observed is MachineState.RUNNING and now.desired is DesiredState.RUNNING
    stopped = now.observed in {MachineState.STOPPED, MachineState.ABSENT}
    if kind is OperationKind.STOP and (
        now.creation_failed or (stopped and now.desired is DesiredState.STOPPED)
    ):
        return Verdict(Answer.NOTHING)
    if now.creation_failed:
        return Verdict(
            Answer.REFUSE,
            "the creation of this workspace failed; retry it with POST "
            "/workspace/:id/provisioning/retry or delete it",
        )
    if kind is OperationKind.START and running and not force:
        return Verdict(Answer.NOTHING)
    return Verdict(Answer.BEGIN)
