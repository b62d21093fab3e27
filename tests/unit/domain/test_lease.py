"""Leases: durations, ends, and the bodies of the calls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bastide.domain.creation import CreateWorkspace
from bastide.domain.duration import LONGEST, parse_duration
from bastide.domain.errors import ValidationFailed
from bastide.domain.lease import (
    Lease,
    MakeTemporary,
    Ping,
    TtlAction,
    UpdateTtl,
    duration_text,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.integers(1, LONGEST))
def test_a_number_is_shown_as_a_duration(seconds: int) -> None:
    """Seconds become the shortest duration that is exactly as long."""
    text = duration_text(seconds)
    assert parse_duration(text) == seconds
    assert MakeTemporary(ttl=seconds).ttl == text
    assert Lease(text).ends(BEGIN) == BEGIN + timedelta(seconds=seconds)


@given(st.integers(1, 3650), st.sampled_from("smhd"))
def test_a_duration_is_kept_as_written(number: int, unit: str) -> None:
    """What the owner wrote is what is shown."""
    assert MakeTemporary(ttl=f" {number}{unit.upper()} ").ttl == f"{number}{unit}"


@given(st.text() | st.floats() | st.integers(max_value=0) | st.none() | st.booleans())
def test_other_values_are_refused(value: object) -> None:
    """What is no duration is a validation error and nothing else."""
    try:
        parse_duration(value)
    except ValueError:
        with pytest.raises(ValidationError):
            MakeTemporary.model_validate({"ttl": value})
    else:
        MakeTemporary.model_validate({"ttl": value})


def test_a_renewal_of_another_length() -> None:
    """A ping may ask for other seconds than the lease has."""
    assert Lease("1h").ends(BEGIN, 5) == BEGIN + timedelta(seconds=5)
    assert Ping(ttl_seconds=5).ttl_seconds == 5
    with pytest.raises(ValidationError):
        Ping(ttl_seconds=0)


@pytest.mark.parametrize("body", [{}, {"ttl": None}, {"ttl": "1h", "restart_policy": "always"}])
def test_update_ttl_needs_something(body: dict[str, object]) -> None:
    """At least one of the two, and never a restart policy."""
    with pytest.raises(ValidationError):
        UpdateTtl.model_validate(body)
    assert UpdateTtl(ttl_action=TtlAction.REMOVE).ttl is None
    assert MakeTemporary.model_validate({"ttl": "1h", "restart_policy": "never"}).ttl == "1h"


@pytest.mark.parametrize(
    ("body", "lease"),
    [
        ({}, None),
        ({"mode": "permanent"}, None),
        ({"config": {"ttl": "1h"}}, Lease("1h")),
        ({"mode": "temporary", "config": {"ttl": 60}}, Lease("1m")),
        (
            {"config": {"ttl": "1h", "ttl_action": "remove", "remove_on_exit": True}},
            Lease("1h", TtlAction.REMOVE, remove_on_exit=True),
        ),
    ],
)
def test_the_lease_of_a_creation(body: dict[str, object], lease: Lease | None) -> None:
    """A ttl asks for a temporary workspace; without one it is permanent."""
    assert CreateWorkspace.model_validate(body).lease == lease


@pytest.mark.parametrize(
    "body",
    [
        {"mode": "temporary"},
        {"mode": "permanent", "config": {"ttl": "1h"}},
        {"config": {"ttl_action": "stop"}},
        {"config": {"remove_on_exit": True}},
    ],
)
def test_contradictions_are_named(body: dict[str, object]) -> None:
    """A mode without its lease, or a lease without its mode, names the field."""
    with pytest.raises(ValidationFailed) as refused:
        _ = CreateWorkspace.model_validate(body).lease
    assert refused.value.field.startswith("config.")
