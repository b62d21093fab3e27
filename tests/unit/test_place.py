"""Places of the tests' clouds on one host."""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tests.cloud.place import IDS, PLACES, free_place, id_base, subnet


def nothing() -> list[IPv4Network]:
    return []


def test_two_at_once_share_nothing(tmp_path: Path) -> None:
    """As many as there are places are apart; one more is refused; a place is used again."""
    with ExitStack() as held:
        taken = [held.enter_context(free_place(tmp_path, nothing)) for _ in range(PLACES)]
        assert taken == list(range(PLACES))
        assert len({subnet(number) for number in taken}) == PLACES
        with pytest.raises(RuntimeError, match="taken"), free_place(tmp_path, nothing):
            pass
    assert id_base(PLACES - 1) + IDS < 2**32
    with free_place(tmp_path, nothing) as number:
        assert number == 0


def test_what_has_a_route_is_not_taken(tmp_path: Path) -> None:
    """Neither a cloud that was left behind nor another network of the host is used again."""
    there = [subnet(0), IPv4Network("10.151.3.0/24"), IPv4Network("10.152.0.1/32")]
    with free_place(tmp_path, lambda: there) as number:
        assert number == 3
