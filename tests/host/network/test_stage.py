"""The tests' own world: it never waits without end."""

from __future__ import annotations

import subprocess

import pytest

from .stage import answer_of


def test_a_silent_guest_is_given_up() -> None:
    """One that prints nothing fails the test; one that does is heard."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cat:
        assert cat.stdin is not None
        with pytest.raises(TimeoutError, match="did not answer"):
            answer_of(cat, within=0.1)
        cat.stdin.write('"ready"\n')
        cat.stdin.flush()
        assert answer_of(cat) == "ready"
