"""Whether a file system takes all of its file, on real ones that are never mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bastide.node import ext4
from bastide.node.disks import MIB, Disks

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


@pytest.mark.parametrize("amid", [False, True])
def test_a_growth_that_was_cut_short_is_taken_up_again(tmp_path: Path, *, amid: bool) -> None:
    """Killed between the file and the file system, or amid the program: the next boot ends it."""
    disks = Disks(tmp_path)
    disks.create(MACHINE, 256)
    file = disks.path(MACHINE)
    os.truncate(file, 4096 * MIB)
    if amid:
        subprocess.run(["e2fsck", "-fp", str(file)], check=True, capture_output=True)
        growing = subprocess.Popen(["resize2fs", str(file)], stdout=subprocess.DEVNULL)
        growing.kill()
        growing.wait()
    else:
        assert not ext4.fills(file)
    disks.grow(MACHINE, 256)
    assert ext4.fills(file)
    checked = subprocess.run(["e2fsck", "-fn", str(file)], check=False, capture_output=True)
    assert checked.returncode == 0
    assert b"1048576 blocks" in checked.stdout, "4 GiB of blocks"


def test_what_is_no_file_system_fills_nothing(tmp_path: Path) -> None:
    """Neither nonsense nor an empty file."""
    file = tmp_path / "file"
    for content in (b"", b"x" * 4096, bytes(8192)):
        file.write_bytes(content)
        assert not ext4.fills(file)
