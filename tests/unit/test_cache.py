"""The tests' cache: programs that root runs lie in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.cache import own_cache

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the cache is root's")


def test_it_is_made_for_root_alone(tmp_path: Path) -> None:
    """Made with 0755, and taken again."""
    for _ in range(2):
        assert own_cache(tmp_path / "cache").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("wrong", ["user", "group", "world", "link", "file"])
def test_one_that_others_could_change_is_refused(tmp_path: Path, wrong: str) -> None:
    """Whoever was there first cannot have root run something of theirs."""
    path = tmp_path / "cache"
    if wrong == "link":
        (tmp_path / "other").mkdir()
        path.symlink_to(tmp_path / "other")
    elif wrong == "file":
        path.touch(0o644)
    else:
        path.mkdir()
        path.chmod({"user": 0o755, "group": 0o775, "world": 0o757}[wrong])
        if wrong == "user":
            os.chown(path, 65534, 65534)
    with pytest.raises(PermissionError, match="BASTIDE_TEST_CACHE"):
        own_cache(path)
