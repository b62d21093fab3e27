"""The link to what is in force."""

from __future__ import annotations

import os
from pathlib import Path

from bastide.prepare.link import point


def test_a_link_names_the_last(tmp_path: Path) -> None:
    """It is made and changed, also after a change that was interrupted; nothing is left over."""
    link = tmp_path / "current"
    (tmp_path / f".current.{os.getpid()}").symlink_to("interrupted")
    for name in ("first", "second", "second"):
        (tmp_path / name).mkdir(exist_ok=True)
        point(link, name)
        assert link.readlink() == Path(name)
    assert {path.name for path in tmp_path.iterdir()} == {"current", "first", "second"}
