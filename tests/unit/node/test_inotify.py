"""The host's inotify limits."""

from __future__ import annotations

from pathlib import Path

from bastide.node.inotify import LIMITS, shortfall, widen


def test_limits_are_raised_and_never_lowered(tmp_path: Path) -> None:
    """A low limit is raised to what is wanted; a higher one stays."""
    instances, watches = tmp_path / "max_user_instances", tmp_path / "max_user_watches"
    instances.write_text("128\n")
    watches.write_text(f"{2**31 - 1}\n")
    assert shortfall(tmp_path) == [f"fs.inotify.max_user_instances={2**24}"]
    widen(tmp_path)
    assert int(instances.read_text()) == LIMITS["max_user_instances"]
    assert int(watches.read_text()) == 2**31 - 1
    assert shortfall(tmp_path) == []
