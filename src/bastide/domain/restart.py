"""Restart policies: what happens when a machine ends by itself (spec 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bastide.domain.machine import MachineExit

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
STEADY_AFTER = 60.0


class RestartPolicy(StrEnum):
    """What to do after an exit nobody asked for."""

    NO = "no"
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    UNLESS_STOPPED = "unless-stopped"


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again in `delay` seconds; `count` restarts have then been made in a row."""

    delay: float
    count: int


def after_exit(
    policy: RestartPolicy, ended: MachineExit, *, count: int, most: int, ran: float
) -> Restart | None:
    """The restart due after `ended`, or None when the workspace stays stopped.

    Args:
        policy: the workspace's policy.
        ended: how the machine ended.
        count: restarts since the owner last started it.
        most: `max_restarts`; 0 is unlimited.
        ran: seconds the machine had run; after a steady minute the delay begins anew.
    """
    if policy is RestartPolicy.NO:
        return None
    failed = ended.code != 0 or ended.signal is not None or ended.oom
    if policy is RestartPolicy.ON_FAILURE and not failed:
        return None
    if most and count >= most:
        return None
    steps = 0 if ran >= STEADY_AFTER else min(count, 10)
    return Restart(min(FIRST_DELAY * 2**steps, LONGEST_DELAY), count + 1)
