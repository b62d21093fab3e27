"""Restart policies: what happens when a machine ends by itself (spec 5.2)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from bastide.domain.machine import MachineExit

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
STEADY_AFTER = 60.0
HISTORY = 10
"""Ends that are kept for people to see."""


def present_word(value: Any) -> Any:
    """A policy by its present name: older clients say `never`."""
    return "no" if value == "never" else value


class RestartPolicy(StrEnum):
    """What to do after an exit nobody asked for."""

    NO = "no"
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    UNLESS_STOPPED = "unless-stopped"


Cause = Literal["exit", "lost", "failed_start"]


class End(BaseModel):
    """One end of a machine that nobody asked for.

    `cause`: it ended by itself, was lost with its host, or did not come up. `restarted` tells
    whether a restart followed, `delay` after how many seconds.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: datetime
    cause: Cause
    code: int | None = None
    signal: int | None = None
    oom: bool = False
    reason: str | None = None
    restarted: bool = False
    delay: float | None = None


class Restarts(BaseModel):
    """The restarts since a person last started the workspace; newest end first.

    `count` is what `max_restarts` bounds; `streak` counts those without a steady minute between
    them, and sets the delay.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    count: int = 0
    streak: int = 0
    history: tuple[End, ...] = ()

    def ended(self, end: End) -> Restarts:
        """With one more end, that no restart followed."""
        return self.model_copy(update={"history": (end, *self.history)[:HISTORY]})

    def called_off(self) -> Restarts:
        """Without the restart that was still to come after the newest end."""
        if not self.history or not self.history[0].restarted:
            return self
        last, *before = self.history
        rests = last.model_copy(update={"restarted": False, "delay": None})
        fewer = 0 if last.cause == "lost" else 1  # a loss was not counted
        return self.model_copy(
            update={"history": (rests, *before), "count": max(0, self.count - fewer)}
        )

    def shown(self) -> dict[str, Any]:
        """`restart_info` on the wire; empty while nothing has happened (seed 003)."""
        if not self.history:
            return {}
        return {"count": self.count, **self.model_dump(mode="json", include={"history"})}


def unseen(ended: MachineExit | None) -> bool:
    """Whether nobody saw how it ended: its host, or the node with it, went down."""
    if ended is None or ended.requested:
        return True
    return ended.code is None and ended.signal is None and not ended.oom


def after_exit(
    policy: RestartPolicy, ended: MachineExit, past: Restarts, *, most: int, ran: float
) -> Restarts:
    """What becomes of the restarts after `ended`; its newest end says whether one is due.

    Args:
        policy: the workspace's policy.
        ended: how the machine ended.
        past: the restarts so far.
        most: `max_restarts`; 0 is unlimited.
        ran: seconds the machine had run; after a steady minute the delay begins anew.
    """
    end = End(
        at=ended.at,
        cause="exit",
        code=ended.code,
        signal=ended.signal,
        oom=ended.oom,
        reason=ended.reason,
    )
    failed = ended.code != 0 or ended.signal is not None or ended.oom
    if policy is RestartPolicy.ON_FAILURE and not failed:
        return past.ended(end)
    return _again(policy, end, past, most=most, ran=ran)


def after_failed_start(
    policy: RestartPolicy, at: datetime, past: Restarts, *, most: int
) -> Restarts:
    """The same after a restart of ours that did not come up: it counts as a failure."""
    return _again(policy, End(at=at, cause="failed_start"), past, most=most, ran=0.0)


def after_loss(policy: RestartPolicy, at: datetime, past: Restarts) -> Restarts:
    """The same after a machine was lost with its host.

    That is no fault of the workspace: it does not count, and waits for nothing. `no` and
    `on-failure` stay stopped, as nobody knows of a failure.
    """
    end = End(at=at, cause="lost")
    if policy in {RestartPolicy.NO, RestartPolicy.ON_FAILURE}:
        return past.ended(end)
    return past.ended(end.model_copy(update={"restarted": True, "delay": 0.0}))


def _again(policy: RestartPolicy, end: End, past: Restarts, *, most: int, ran: float) -> Restarts:
    """One more restart, unless the policy or `max_restarts` is against it."""
    if policy is RestartPolicy.NO or (most and past.count >= most):
        return past.ended(end)
    streak = 0 if ran >= STEADY_AFTER else past.streak
    delay = min(FIRST_DELAY * 2 ** min(streak, 10), LONGEST_DELAY)
    with_end = past.ended(end.model_copy(update={"restarted": True, "delay": delay}))
    return with_end.model_copy(update={"count": past.count + 1, "streak": streak + 1})
