"""Whether a file system takes all of its file, on real ones that are never mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from bastide.node import ext4
from bastide.node.disks import MIB, Disks
from bastide.node.errors import BootFailed

pytestmark = pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="e2fsprogs are missing")
MACHINE = "ws_00000001"


@pytest.mark.parametrize("size", [64, 100, 128, 129, 131, 133, 200, 257, 1025, 4096])
def test_new_and_grown_disks_fill_their_files(tmp_path: Path, size: int) -> None:
    """Whatever the size, also where the last group is too small to be made."""
    disks = Disks(tmp_path)
    disks.create(MACHINE, size)
    file = disks.path(MACHINE)
    assert ext4.fills(file)
    disks.grow(MACHINE, size + 70)
    assert file.stat().st_size == (size + 70) * MIB
    assert ext4.fills(file)


def check_four_gib(disk: Path) -> None:
    """It fills its file, nothing is wrong with it, and it has 4 GiB of blocks."""
    assert ext4.fills(disk)
    checked = subprocess.run(["e2fsck", "-fn", str(disk)], check=False, capture_output=True)
    assert checked.returncode == 0
    assert b"1048576 blocks" in checked.stdout


def kept(disk: Path) -> bytes:
    """What its files hold."""
    show = [f"cat /file{number}" for number in range(8)]
    return b"".join(debugfs(disk, command) for command in show)


def debugfs(disk: Path, command: str) -> bytes:
    """Do something with a disk that nobody has mounted."""
    done = subprocess.run(
        ["debugfs", "-w", "-R", command, str(disk)], check=True, capture_output=True
    )
    return done.stdout


def test_a_growth_that_never_began_is_taken_up_again(tmp_path: Path) -> None:
    """Killed between the file and the file system: the next boot ends it."""
    disks = Disks(tmp_path)
    disks.create(MACHINE, 256)
    file = disks.path(MACHINE)
    os.truncate(file, 4096 * MIB)
    assert not ext4.fills(file)
    disks.grow(MACHINE, 256)
    check_four_gib(file)


@pytest.mark.parametrize("milliseconds", [1, 2, 4, 6, 9, 12, 15, 20, 30])
def test_a_growth_that_was_cut_short_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, milliseconds: int
) -> None:
    """Killed anywhere amid the program: the next boot ends it, and what it held is there."""
    disks = Disks(tmp_path / "disks")
    disks.create(MACHINE, 256)
    file = disks.path(MACHINE)
    source = tmp_path / "source"
    for number in range(8):
        source.write_bytes(os.urandom(100_000))
        debugfs(file, f"write {source} file{number}")
    before = kept(file)
    killed = tmp_path / "resize2fs"
    real = shutil.which("resize2fs")
    killed.write_text(f'#!/bin/sh\nexec timeout -s KILL 0.0{milliseconds:02} {real} "$@"\n')
    killed.chmod(0o755)
    with monkeypatch.context() as patch, suppress(BootFailed):  # it may have been quicker
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        disks.grow(MACHINE, 4096)
    disks.grow(MACHINE, 4096)
    check_four_gib(file)
    assert len(before) == 800_000
    assert kept(file) == before
    assert list(file.parent.iterdir()) == [file]


def test_what_is_no_file_system_fills_nothing(tmp_path: Path) -> None:
    """Neither nonsense nor an empty file."""
    file = tmp_path / "file"
    for content in (b"", b"x" * 4096, bytes(8192)):
        file.write_bytes(content)
        assert not ext4.fills(file)
