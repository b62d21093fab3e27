"""What the command line prints."""

from __future__ import annotations

import pytest

from bastide.cli.fault import Fault
from bastide.cli.output import age, show_fields, show_table


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86400 * 3, "3d")],
)
def test_ages_are_short(seconds: float, shown: str) -> None:
    """A duration is shown in its largest unit."""
    assert age(seconds) == shown


def test_piped_tables_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Off a terminal nothing is cut, absent values are a dash, and markup means nothing."""
    show_table(("ID", "NAME"), [("x" * 200, "[red]n[/red]"), (None, "")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "NAME"]
    assert lines[1].split() == ["x" * 200, "[red]n[/red]"]
    assert lines[2].split() == ["-", "-"]


def test_fields_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Names have one width, so values stand in a column."""
    show_fields([("a", 1), ("long", None)])
    assert capsys.readouterr().out == "a     1\nlong  -\n"


def test_a_fault_has_a_line_each() -> None:
    """What happened, what to do, and the request id."""
    fault = Fault("it broke", "mend it", request_id="r1")
    assert fault.lines() == ["error: it broke", "  what to do: mend it", "  request id: r1"]
    assert Fault("it broke").lines() == ["error: it broke"]
