"""Who guesses is slowed, and nobody else."""

from __future__ import annotations

import pytest

from bastide.bastion import wariness
from bastide.bastion.wariness import (
    FORGIVEN,
    LAST_DELAY,
    PATIENCE,
    UNAIMED,
    Wariness,
    neighbourhood,
)


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_each_failure_takes_longer_until_none_is_heard() -> None:
    """Delays double up to a bound; after ten failures that source may say no more passwords."""
    clock = Clock()
    wary = Wariness(clock)
    delays = [wary.failed("203.0.113.7", "abc234") for _ in range(PATIENCE)]
    assert delays[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert max(delays) == LAST_DELAY
    assert not wary.listens("203.0.113.7")
    assert wary.listens("203.0.113.8")
    clock.now += FORGIVEN
    assert wary.listens("203.0.113.7")
    clock.now += FORGIVEN * PATIENCE
    assert wary.failed("203.0.113.7", "abc234") == 0.5


def test_a_guess_at_all_counts_for_more() -> None:
    """A wrong password said for any workspace silences its source after four, and longer."""
    clock = Clock()
    wary = Wariness(clock)
    for _ in range(4):
        assert wary.listens("203.0.113.7")
        wary.failed("203.0.113.7", "")
    assert not wary.listens("203.0.113.7")
    clock.now += FORGIVEN * UNAIMED
    assert wary.listens("203.0.113.7")
    assert wary.failed("203.0.113.9", "") > wary.failed("203.0.113.8", "abc234")


def test_looking_for_workspaces_counts() -> None:
    """Who asks for workspaces that are not his may soon say no password either."""
    wary = Wariness(Clock())
    for _ in range(PATIENCE):
        assert wary.listens("203.0.113.7")
        wary.refused("203.0.113.7")
    assert not wary.listens("203.0.113.7")


def test_many_sources_at_one_workspace_are_slowed() -> None:
    """Guesses at one name add up whoever makes them; the name is never locked out."""
    wary = Wariness(Clock())
    delays = [wary.failed(f"203.0.113.{n}", "abc234") for n in range(20)]
    assert delays[-1] == LAST_DELAY
    assert wary.failed("203.0.113.200", "xyz789") == 0.5
    assert wary.listens("203.0.113.201")


@pytest.mark.parametrize(
    ("source", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", ""),
    ],
)
def test_who_counts_as_one(source: str, counted: str) -> None:
    """An IPv6 customer has more addresses than could be counted: the /64 is one."""
    assert neighbourhood(source) == counted


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten when there are too many."""
    monkeypatch.setattr(wariness, "REMEMBERED", 3)
    wary = Wariness(Clock())
    for number in range(10):
        wary.failed(f"203.0.113.{number}", f"name{number}")
    assert len(wary._sources._until) == 3
    assert wary.failed("203.0.113.0", "name0") == 0.5
