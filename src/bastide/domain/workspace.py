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
    OperationKind.REINSTALL: Status.STARTING,
    OperationKind.RESTORE: Status.STARTING,
    OperationKind.STOP: Status.STOPPING,
    OperationKind.DESTROY: Status.STOPPING,
    OperationKind.DELETE: Status.STOPPING,
}
"""Operations not named here leave the status as the machine's is: they take moments."""
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
    OperationKind.REINSTALL: "being reinstalled",
    OperationKind.STOP: "stopping",
    OperationKind.PAUSE: "being paused",
    OperationKind.RESUME: "being resumed",
    OperationKind.RESIZE: "being resized",
    OperationKind.SNAPSHOT: "being captured in a snapshot",
    OperationKind.RESTORE: "going back to its snapshot",
    OperationKind.ARCHIVE: "being archived",
    OperationKind.UNPACK: "taking up an archive",
    OperationKind.DESTROY: "being destroyed",
    OperationKind.DELETE: "being deleted",
}

_ARCHIVES = frozenset({OperationKind.ARCHIVE, OperationKind.UNPACK})
_WAITING = frozenset({OperationKind.RESIZE, OperationKind.SNAPSHOT}) | _ARCHIVES
_OF_RUNNING = frozenset({OperationKind.PAUSE, OperationKind.RESUME, OperationKind.SNAPSHOT})


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
    def deleting(self) -> bool:
        """Whether it is on its way out, so that nothing of it may change any more."""
        return self.doing is OperationKind.DELETE or self.desired is DesiredState.DELETED

    @property
    def status(self) -> Status:
        """The `status` shown to clients."""
        if self.doing in _BUSY:
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
    latter unless forced. Destroying supersedes everything but a creation.
    """
    if now.deleting:
        if kind is OperationKind.DELETE:
            return Verdict(Answer.JOIN)
        return Verdict(Answer.REFUSE, "the workspace is being deleted")
    if kind is OperationKind.DELETE:
        return Verdict(Answer.BEGIN, supersede=now.doing is not None)
    if now.doing is not None:
        return _judge_busy(kind, now, now.doing)
    return _judge_idle(kind, now, force=force)


def _judge_idle(kind: OperationKind, now: Condition, *, force: bool) -> Verdict:
    """The verdict when nothing is going on."""
    if now.creation_failed:
        return _judge_failed(kind)
    if _has_nothing_to_do(kind, now, force=force):
        return Verdict(Answer.NOTHING)
    reason = _objection(kind, now)
    return Verdict(Answer.REFUSE, reason) if reason else Verdict(Answer.BEGIN)


def _judge_busy(kind: OperationKind, now: Condition, doing: OperationKind) -> Verdict:
    """The verdict while `doing` is going on.

    A change of sizes, a snapshot and an archive never take the place of something else, which
    would then be left undone, and never join another, which may be of other sizes or end otherwise.
    """
    if kind not in _WAITING:
        if now.automatic:
            return Verdict(Answer.BEGIN, supersede=True)
        if doing is kind:
            return Verdict(Answer.JOIN)
    if kind is OperationKind.DESTROY and doing is not OperationKind.PROVISION:
        return Verdict(Answer.BEGIN, supersede=True)
    return Verdict(
        Answer.REFUSE,
        f"the workspace is {_DOING[doing]}; wait until that is done and try again",
    )


def _judge_failed(kind: OperationKind) -> Verdict:
    """The verdict on a workspace that never came to life."""
    if kind is OperationKind.PROVISION:
        return Verdict(Answer.BEGIN)
    if kind in {OperationKind.STOP, OperationKind.DESTROY}:
        return Verdict(Answer.NOTHING)
    return Verdict(
        Answer.REFUSE,
        "the creation of this workspace failed; retry it with POST "
        "/workspace/:id/provisioning/retry or delete it",
    )


def _has_nothing_to_do(kind: OperationKind, now: Condition, *, force: bool) -> bool:
    """Whether an idle workspace is already as `kind` would leave it."""
    stopped = now.desired is DesiredState.STOPPED
    match kind:
        case OperationKind.START:
            return _is(now, DesiredState.RUNNING, MachineState.RUNNING) and not force
        case OperationKind.RESUME:
            return _is(now, DesiredState.RUNNING, MachineState.RUNNING)
        case OperationKind.PAUSE:
            return _is(now, DesiredState.PAUSED, MachineState.PAUSED)
        case OperationKind.STOP:
            return stopped and now.observed in {MachineState.STOPPED, MachineState.ABSENT}
        case OperationKind.DESTROY:
            return stopped and now.observed is MachineState.ABSENT
        case _:
            return False


def _objection(kind: OperationKind, now: Condition) -> str:
    """Why `kind` cannot begin in an idle workspace; empty when it can."""
    paused = now.observed is MachineState.PAUSED
    up = paused or now.observed is MachineState.RUNNING
    if kind is OperationKind.PROVISION:
        return "only a failed creation can be retried; this workspace was created"
    if kind is OperationKind.START and paused:
        return "the workspace is paused; let it go on with POST /workspace/:id/resume"
    if kind in _OF_RUNNING and not up:
        return "the workspace is not running; start it with POST /workspace/:id/start"
    if kind in _ARCHIVES:
        return _objection_to_archives(now)
    if kind is OperationKind.RESIZE and paused:
        return (
            "the workspace is paused; resume it first, or save the sizes for the next start "
            "with apply: false"
        )
    return ""


def _objection_to_archives(now: Condition) -> str:
    """Why files cannot be read or written: they can in one that runs, and one that is stopped."""
    if now.observed is MachineState.PAUSED:
        return (
            "the workspace is paused, and nothing in it can read its files; resume it, or stop it"
        )
    if now.observed is MachineState.RUNNING:
        return ""
    if now.observed is MachineState.ABSENT:
        return "the workspace was destroyed and has no disk; start it first"
    if now.desired is not DesiredState.STOPPED:
        return "the workspace does not run although it should; wait until it does, or stop it"
    return ""


def _is(now: Condition, desired: DesiredState, observed: MachineState) -> bool:
    return now.desired is desired and now.observed is observed
