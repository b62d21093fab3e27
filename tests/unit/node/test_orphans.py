"""Dead processes that nobody waits for."""

from __future__ import annotations

import os

from bastide.node.orphans import MOMENTS, Orphans


def test_only_what_is_dead_for_long_is_collected() -> None:
    """Whoever waits for a process has its time, however often somebody looks."""
    now = 0.0
    orphans = Orphans(lambda: now)
    child = os.fork()
    if child == 0:
        os._exit(7)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it is dead, and not collected
    orphans.collect()
    now = MOMENTS - 0.1
    orphans.collect()
    assert os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT) is not None
    now = MOMENTS
    assert orphans.collect() >= 1
    assert orphans.collect() == 0
