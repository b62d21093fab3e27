"""Restart policies."""

from __future__ import annotations

import pytest

from bastide.domain.instant import now
from bastide.domain.machine import MachineExit
from bastide.domain.restart import LONGEST_DELAY, RestartPolicy, after_exit

GOOD = MachineExit(at=now(), code=0)
BAD = MachineExit(at=now(), code=1)
OOM = MachineExit(at=now(), code=0, oom=True)


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
    assert (after_exit(policy, ended, count=0, most=0, ran=1) is not None) is again


def test_the_delay_grows_and_the_count_ends() -> None:
    """Back-off doubles up to a minute, begins anew after a steady run, and max_restarts ends it."""
    delays = [
        found.delay
        for count in range(9)
        if (found := after_exit(RestartPolicy.ALWAYS, BAD, count=count, most=0, ran=1))
    ]
    assert delays[:4] == [1, 2, 4, 8]
    assert delays[-1] == LONGEST_DELAY
    steady = after_exit(RestartPolicy.ALWAYS, BAD, count=8, most=0, ran=61)
    assert steady is not None
    assert steady.delay == 1
    assert after_exit(RestartPolicy.ALWAYS, BAD, count=3, most=3, ran=1) is None
