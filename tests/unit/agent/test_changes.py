"""Debounced changes, on a clock that stands still until it is moved."""

from __future__ import annotations

from bastide_agent.watchers.changes import DEBOUNCE, LIMIT, Changes


class Clock:
    """Time by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_last_operation_of_fifty_milliseconds_wins() -> None:
    """Nothing is due before 50 ms; then each path once, with its last operation, in order."""
    clock = Clock()
    changes = Changes(clock)
    changes.add("/a", "create")
    clock.now += DEBOUNCE / 2
    changes.add("/b", "create")
    changes.add("/a", "write")
    assert changes.take() is None
    assert changes.due_at == 100.0 + DEBOUNCE
    clock.now = 100.0 + DEBOUNCE
    assert changes.take() == ("/a", "write")
    assert changes.take() is None
    clock.now += DEBOUNCE
    assert changes.take() == ("/b", "create")
    assert changes.due_at is None


def test_a_path_that_never_rests_is_still_told() -> None:
    """A file written without pause is told every 50 ms."""
    clock = Clock()
    changes = Changes(clock)
    told = 0
    for _ in range(1000):
        changes.add("/log", "write")
        clock.now += DEBOUNCE / 10
        told += changes.take() is not None
    assert 80 <= told <= 100


def test_too_many_paths_are_dropped_and_told() -> None:
    """Above the limit new paths are lost, which is noted; known ones still change."""
    changes = Changes(Clock())
    for number in range(LIMIT):
        changes.add(str(number), "create")
    assert not changes.lost
    changes.add("0", "remove")
    assert not changes.lost
    changes.add("more", "create")
    assert changes.lost
