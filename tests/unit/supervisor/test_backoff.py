"""Delays between restarts."""

from __future__ import annotations

from bastide.supervisor.backoff import Backoff


def test_delays_double_up_to_the_most() -> None:
    """A crash loop waits longer each time, but never longer than `most`."""
    backoff = Backoff(first=1, most=5, settled=60)
    assert [backoff.after(0.1) for _ in range(5)] == [1, 2, 4, 5, 5]


def test_a_settled_life_is_forgiven() -> None:
    """After a life of `settled` seconds the first delay applies again."""
    backoff = Backoff(first=1, most=5, settled=60)
    for _ in range(4):
        backoff.after(0)
    assert backoff.after(60) == 1
    assert backoff.after(59) == 2
