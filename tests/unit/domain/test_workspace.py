"""What a workspace shows and accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import MachineState
from bastide.domain.operation import OperationKind
from bastide.domain.workspace import Answer, Condition, Status, judge

CONDITIONS = st.builds(
    Condition,
    desired=st.sampled_from(DesiredState),
    observed=st.sampled_from(MachineState),
    doing=st.none() | st.sampled_from(OperationKind),
    automatic=st.booleans(),
    creation_failed=st.booleans(),
)
RUNNING = Condition(DesiredState.RUNNING, MachineState.RUNNING)
PAUSED = Condition(DesiredState.PAUSED, MachineState.PAUSED)
STOPPED = Condition(DesiredState.STOPPED, MachineState.STOPPED)


@given(CONDITIONS)
def test_every_condition_can_be_deleted(now: Condition) -> None:
    """A workspace in any state can be deleted, and deleting twice is one deletion."""
    verdict = judge(OperationKind.DELETE, now)
    assert verdict.answer in {Answer.BEGIN, Answer.JOIN}
    if verdict.answer is Answer.BEGIN and now.doing is not None:
        assert verdict.supersede


@given(now=CONDITIONS, kind=st.sampled_from(OperationKind), force=st.booleans())
def test_a_verdict_is_consistent(now: Condition, kind: OperationKind, *, force: bool) -> None:
    """A refusal says why, a join has something to join, and nothing else supersedes a person."""
    verdict = judge(kind, now, force=force)
    if verdict.answer is Answer.REFUSE:
        assert verdict.reason
    if verdict.answer is Answer.JOIN and kind is not OperationKind.DELETE:
        assert now.doing is kind
    if verdict.answer is Answer.BEGIN and now.doing is not None:
        assert verdict.supersede
        forceful = {OperationKind.DELETE, OperationKind.DESTROY}
        assert kind in forceful or now.automatic
    if verdict.answer is Answer.BEGIN and kind in {OperationKind.RESIZE, OperationKind.SNAPSHOT}:
        assert now.doing is None


@given(CONDITIONS)
def test_info_status_knows_no_error(now: Condition) -> None:
    """`info.status` keeps to the words of the specification."""
    assert now.machine_status is not Status.ERROR


@pytest.mark.parametrize(
    ("kind", "now", "answer"),
    [
        (OperationKind.SNAPSHOT, RUNNING, Answer.BEGIN),
        (OperationKind.SNAPSHOT, PAUSED, Answer.BEGIN),
        (OperationKind.SNAPSHOT, STOPPED, Answer.REFUSE),
        (OperationKind.RESTORE, RUNNING, Answer.BEGIN),
        (OperationKind.RESTORE, STOPPED, Answer.BEGIN),
        (OperationKind.START, RUNNING, Answer.NOTHING),
        (OperationKind.START, STOPPED, Answer.BEGIN),
        (OperationKind.STOP, STOPPED, Answer.NOTHING),
        (OperationKind.STOP, RUNNING, Answer.BEGIN),
        (OperationKind.RESTART, STOPPED, Answer.BEGIN),
        (OperationKind.START, PAUSED, Answer.REFUSE),
        (OperationKind.STOP, PAUSED, Answer.BEGIN),
        (OperationKind.RESTART, PAUSED, Answer.BEGIN),
        (OperationKind.PAUSE, RUNNING, Answer.BEGIN),
        (OperationKind.PAUSE, PAUSED, Answer.NOTHING),
        (OperationKind.PAUSE, STOPPED, Answer.REFUSE),
        (OperationKind.RESUME, PAUSED, Answer.BEGIN),
        (OperationKind.RESUME, RUNNING, Answer.NOTHING),
        (OperationKind.RESUME, STOPPED, Answer.REFUSE),
        (OperationKind.RESIZE, PAUSED, Answer.REFUSE),
        (OperationKind.DESTROY, RUNNING, Answer.BEGIN),
        (OperationKind.DESTROY, STOPPED, Answer.BEGIN),
        (OperationKind.PROVISION, RUNNING, Answer.REFUSE),
    ],
)
def test_idle_workspaces(kind: OperationKind, now: Condition, answer: Answer) -> None:
    """What has nothing to do succeeds, the rest begins."""
    assert judge(kind, now).answer is answer


def test_a_forced_start_begins() -> None:
    """`force` starts even what runs."""
    assert judge(OperationKind.START, RUNNING, force=True).answer is Answer.BEGIN
