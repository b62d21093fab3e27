"""The error catalogue is complete and its page is in step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bastide.domain.errors import (
    BastideError,
    Conflict,
    LimitReached,
    ValidationFailed,
    catalogue,
    catalogue_page,
)

PAGE = Path(__file__).parents[3] / "docs" / "errors.md"
SPECIFIED = {
    "validation_error": 422,
    "bad_request": 400,
    "unauthorized": 401,
    "RUNNING_POOL_REACHED": 402,
    "VM_UNAVAILABLE": 503,
    "SANDBOX_LIMIT_REACHED": 409,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "vm_not_running": 409,
    "disabled": 403,
    "server_error": 500,
}


@pytest.mark.parametrize("kind", list(catalogue()), ids=lambda kind: kind.__name__)
def test_every_kind_says_code_status_and_what_to_do(kind: type[BastideError]) -> None:
    """No kind of failure is without code, status, meaning and hint."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*|[A-Z]+(_[A-Z]+)+", kind.code)
    assert 400 <= kind.status < 600
    assert kind.meaning.endswith(".")
    assert kind.hint.endswith(".")
    assert kind.__doc__


def test_specified_codes_have_their_status() -> None:
    """The codes of the specification that this server has a use for have the status it gives."""
    statuses = {kind.code: kind.status for kind in catalogue()}
    assert {code: statuses.get(code) for code in SPECIFIED} == SPECIFIED


def test_message_defaults_to_meaning_and_hint() -> None:
    """A failure raised without a sentence still says what to do."""
    for kind in catalogue():
        if not issubclass(kind, ValidationFailed | LimitReached):
            assert kind.hint in kind().message


def test_particulars_reach_the_body() -> None:
    """Fields, limits and states are kept where clients look for them."""
    assert ValidationFailed("port", "must be 1 to 65535").details == {"field": "port"}
    assert LimitReached(current=3, maximum=3).extra == {"current": 3, "max": 3}
    assert Conflict("is stopped", state="stopped").details == {"state": "stopped"}


def test_page_is_in_step() -> None:
    """docs/errors.md is what the catalogue writes."""
    assert PAGE.read_text() == catalogue_page(), (
        "run: python -m bastide.domain.errors > docs/errors.md"
    )
