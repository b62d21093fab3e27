"""Restart policies."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain.machine import MachineExit
from bastide.domain.restart import (
    FIRST_DELAY,
    HISTORY,
    LONGEST_DELAY,
    STEADY_AFTER,
    RestartPolicy,
    Restarts,
    after_exit,
    after_failed_start,
    after_loss,
    unseen,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = MachineExit(at=AT, code=0)
BAD = MachineExit(at=AT, code=1)
OOM = MachineExit(at=AT, code=0, oom=True)
NONE = Restarts()
EXITS = st.builds(
    MachineExit,
    at=st.just(AT),
    code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 31),
    oom=st.booleans(),
)


@pytest.mark.parametrize(
    ("policy", "ended", "again"),
    [
        (RestartPolicy.NO, BAD, False),
        (RestartPolicy.ALWAYS, GOOD, True),
        (RestartPolicy.UNLESS_STOPPED, GOOD, True),
        (RestartPolicy.ON_FAILURE, GOOD, False),
        (RestartPolicy.ON_FAILURE, BAD, True),
        (RestartPolicy.ON_FAILURE, OOM, True),
    ],
)
def test_policies(policy: RestartPolicy, ended: MachineExit, *, again: bool) -> None:
    """Each policy restarts what it says."""
    found = after_exit(policy, ended, NONE, most=0, ran=1)
    assert found.history[0].restarted is again
    assert found.count == int(again)


@given(st.lists(st.tuples(EXITS, st.floats(0, 1000)), max_size=30), st.integers(0, 5))
def test_delays_and_counts(ends: list[tuple[MachineExit, float]], most: int) -> None:
    """The delay doubles from 1 s to 60 s and begins anew after a steady minute; max_restarts is
    never passed; the last ten ends are kept, the newest first."""  # noqa: D205, D209
    past, quick = NONE, 0
    for ended, ran in ends:
        found = after_exit(RestartPolicy.ALWAYS, ended, past, most=most, ran=ran)
        last = found.history[0]
        assert (last.code, last.signal, last.oom) == (ended.code, ended.signal, ended.oom)
        assert len(found.history) <= HISTORY
        if most and past.count >= most:
            assert not last.restarted
            assert found.count == past.count
        else:
            quick = 0 if ran >= STEADY_AFTER else quick
            assert last.delay == min(FIRST_DELAY * 2**quick, LONGEST_DELAY)
            assert found.count == past.count + 1
            quick += 1
        past = found


@pytest.mark.parametrize("policy", RestartPolicy)
def test_a_lost_host_is_no_fault(policy: RestartPolicy) -> None:
    """After a host was lost `always` and `unless-stopped` start at once, and it does not count."""
    found = after_loss(policy, AT, NONE)
    comes_back = policy in {RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED}
    assert found.history[0].restarted is comes_back
    assert found.count == 0
    assert found.history[0].delay == (0.0 if comes_back else None)


def test_a_restart_that_fails_counts() -> None:
    """A restart that does not come up is tried again with the next delay, up to the maximum."""
    first = after_exit(RestartPolicy.ON_FAILURE, BAD, NONE, most=2, ran=1)
    second = after_failed_start(RestartPolicy.ON_FAILURE, AT, first, most=2)
    third = after_failed_start(RestartPolicy.ON_FAILURE, AT, second, most=2)
    assert [end.restarted for end in third.history] == [False, True, True]
    assert second.history[0].delay == 2.0


@pytest.mark.parametrize(
    ("ended", "nobody_saw"),
    [
        (None, True),
        (MachineExit(at=AT), True),
        (MachineExit(at=AT, code=0, requested=True), True),
        (GOOD, False),
        (MachineExit(at=AT, signal=9), False),
        (MachineExit(at=AT, oom=True), False),
    ],
)
def test_what_nobody_saw(ended: MachineExit | None, *, nobody_saw: bool) -> None:
    """An end without code, signal or a shortage of memory is that of the host."""
    assert unseen(ended) is nobody_saw


def test_nothing_to_show() -> None:
    """`restart_info` is empty until something has happened (seed 003)."""
    assert NONE.shown() == {}
    shown = after_exit(RestartPolicy.ALWAYS, BAD, NONE, most=0, ran=1).shown()
    assert shown["count"] == 1
    assert shown["history"][0]["code"] == 1
