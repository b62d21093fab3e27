"""Disks: the programs that make and grow them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.node import disks
from bastide.node.errors import BootFailed

MACHINE = "ws_00000001"


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that never end, and little patience with them."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("mkfs.ext4", "e2fsck", "resize2fs"):
        (programs / name).write_text("#!/bin/sh\nexec /bin/sleep 600\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(disks, "_PROGRAM_TIMEOUT", 0.1)
    monkeypatch.setattr(disks, "RESERVE_BYTES", 0)


@pytest.mark.usefixtures("stuck")
def test_a_format_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    """The program is ended, the reason told, and no half-made disk is left."""
    made = disks.Disks(tmp_path / "disks")
    with pytest.raises(BootFailed, match=r"mkfs\.ext4 did not end"):
        made.create(MACHINE, 16)
    assert list((tmp_path / "disks").iterdir()) == []


@pytest.mark.usefixtures("stuck")
def test_a_check_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    """The disk stays as large as it was."""
    made = disks.Disks(tmp_path)
    made.path(MACHINE).write_bytes(b"\0" * 4096)
    with pytest.raises(BootFailed, match="e2fsck did not end"):
        made.grow(MACHINE, 16)
    assert made.path(MACHINE).stat().st_size == 4096
