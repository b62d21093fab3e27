"""How far long work is, as it is told."""

from __future__ import annotations

import io
import re
import sys

import pytest

from bastide.cli.progress import progress


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


def test_piped_each_step_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    """First step, steps and end with the seconds since the beginning; nothing among results."""
    with progress("restoring files") as tell:
        tell("[half] of it")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert [re.sub(r"\d+\.\d\d", "N", line).split(None, 1) for line in lines] == [
        ["Ns", "restoring files"],
        ["Ns", "[half] of it"],
        ["Ns", "done"],
    ]
    assert captured.out == ""


def test_a_person_sees_the_seconds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a line of its own counts beneath the steps, and is gone in the end."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("restoring files"):
        pass
    shown = terminal.getvalue()
    assert "restoring files" in shown
    assert re.search(r"\x1b\[0m 0s", shown), "the count"
    assert shown.endswith("\x1b[2K"), "its line is taken away"


def test_programs_hear_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json there is the document and not a word beside it."""
    with progress("restoring files", json=True) as tell:
        tell("half of it")
    assert capsys.readouterr() == ("", "")


def test_what_fails_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    """A call that is refused goes on as an error, and no end is told."""
    with pytest.raises(ValueError, match="no"), progress("restoring files"):
        raise ValueError("no")
    assert "done" not in capsys.readouterr().err
