"""Durations as clients write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain.duration import LONGEST, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h", 3600), ("7d", 604800), ("30s", 30), (900, 900), ("900", 900), (60.0, 60)],
)
def test_known_forms(text: object, seconds: int) -> None:
    """Every form the specification shows is read."""
    assert parse_duration(text) == seconds


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.binary()))
def test_anything_else_is_refused(value: object) -> None:
    """Whatever comes in gives a sane number of seconds or a ValueError."""
    try:
        seconds = parse_duration(value)
    except ValueError:
        return
    assert 1 <= seconds <= LONGEST
