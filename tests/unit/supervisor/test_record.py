"""The record of what runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.supervisor.process import Process
from bastide.supervisor.record import Entry, Record


def test_a_record_reads_as_it_was_written(tmp_path: Path) -> None:
    """Writing and reading give the same record, readable by its owner only."""
    path = tmp_path / "supervisor.json"
    record = Record(
        Process(1, 2),
        entries=(
            Entry("node", "running", Process(3, 4), 5, "exit code 1"),
            Entry("api", "waiting"),
        ),
    )
    record.write(path)
    assert Record.read(path) == record
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"supervisor": {"pid": 1}}'])
def test_a_broken_record_is_none(tmp_path: Path, text: str) -> None:
    """A file that is no record is like none."""
    path = tmp_path / "supervisor.json"
    path.write_text(text)
    assert Record.read(path) is None


def test_no_record_is_none(tmp_path: Path) -> None:
    """An absent file is no record."""
    assert Record.read(tmp_path / "absent") is None
