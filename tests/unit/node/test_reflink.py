"""Copies of sparse files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bastide.node import reflink

MIB = 1024 * 1024


def test_holes_stay_holes(tmp_path: Path) -> None:
    """A copy has the same bytes and length, and takes no more room."""
    source, target = tmp_path / "a", tmp_path / "b"
    with source.open("wb") as file:
        file.truncate(256 * MIB)
        for at in (0, 100 * MIB + 17, 256 * MIB - 5):
            file.seek(at)
            file.write(os.urandom(5))
    reflink.copy(source, target)
    assert target.stat().st_size == source.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_blocks * 512 < MIB
    with source.open("rb") as one, target.open("rb") as other:
        for at in (0, 100 * MIB, 256 * MIB - 4096):
            one.seek(at)
            other.seek(at)
            assert one.read(4096) == other.read(4096)


def test_an_empty_file_and_one_that_is_all_hole(tmp_path: Path) -> None:
    """Neither has data to copy."""
    for name, size in (("empty", 0), ("hole", MIB)):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, size)
        reflink.copy(tmp_path / name, tmp_path / f"{name}.copy")
        assert (tmp_path / f"{name}.copy").stat().st_size == size


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room there is no half copy; another's file is not touched; links are not followed."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x")
    target.write_bytes(b"another's")
    with pytest.raises(FileExistsError):
        reflink.copy(source, target)
    assert target.read_bytes() == b"another's"

    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(reflink, "_clone", full)
    with pytest.raises(OSError, match="full"):
        reflink.copy(source, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(OSError, match="symbolic"):
        reflink.copy(tmp_path / "link", tmp_path / "d")
