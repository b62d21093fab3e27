"""Reading lines of files that may never end."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide_agent.files import reading
from bastide_agent.http.errors import ApiError


def test_a_line_that_is_too_far_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search for a line ends in time, and says so."""
    file = tmp_path / "endless"
    file.write_bytes(b"no newline ")
    assert reading.read_lines(str(file), 1, None)[0] == b"no newline "
    monkeypatch.setattr(reading, "SCAN_SECONDS", -1.0)
    with pytest.raises(ApiError) as given_up:
        reading.read_lines(str(file), 10**9, None)
    assert given_up.value.status == 504
