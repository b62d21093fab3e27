"""Whether hardware can run guests is found out once, and told with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.node.machines.microvm import hardware
from bastide.node.machines.microvm.hardware import Hardware, known_hardware, try_hardware
from bastide.node.machines.microvm.kernel import Kernel, KernelRecord
from bastide.node.machines.microvm.program import BINARY, LIBRARIES
from bastide.node.machines.microvm.qemu import TRIAL

RECORD = KernelRecord(digest="d", name="linux", package="1", release="6")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path, RECORD)


def emulator(home: Path, text: str) -> Path:
    """A directory laid out as the emulator's, whose loader is a shell script."""
    loader = home / LIBRARIES / "ld-linux-x86-64.so.2"
    loader.parent.mkdir(parents=True)
    (home / BINARY).parent.mkdir()
    loader.write_text(f"#!/bin/sh\n{text}\n")
    loader.chmod(0o755)
    return home


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device that opens."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(hardware, "_DEVICE", device)
    return device


def test_without_a_device_nothing_is_tried(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without it is told so, and nothing is started."""
    monkeypatch.setattr(hardware, "_DEVICE", tmp_path / "none")
    found = try_hardware(tmp_path, tmp_path / "no-emulator", kernel)
    assert not found.usable
    assert "is not there" in found.reason
    assert known_hardware(tmp_path) == found


def test_a_guest_that_speaks_proves_it_once(tmp_path: Path, kernel: Kernel, device: Path) -> None:
    """It counts until host, emulator or kernel is another, without being tried again."""
    home = emulator(tmp_path / "home", f"echo x >> {tmp_path}/tried; echo {TRIAL}")
    assert known_hardware(tmp_path) is None
    for _ in range(2):
        assert try_hardware(tmp_path, home, kernel).usable
    assert (tmp_path / "tried").read_text() == "x\n"
    assert known_hardware(tmp_path) == Hardware(True, f"a guest came up on {device}")
    another = Kernel(tmp_path, RECORD.model_copy(update={"digest": "e"}))
    try_hardware(tmp_path, home, another)
    assert (tmp_path / "tried").read_text() == "x\nx\n"


def test_a_guest_that_fails_is_told(tmp_path: Path, kernel: Kernel, device: Path) -> None:
    """What the emulator said is the reason."""
    home = emulator(tmp_path / "home", "echo cannot set a register >&2; exit 1")
    found = try_hardware(tmp_path, home, kernel)
    assert found == Hardware(False, f"a guest on {device} failed: cannot set a register")


def test_a_guest_that_hangs_is_given_up(
    tmp_path: Path, kernel: Kernel, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the deadline hardware counts as unusable."""
    monkeypatch.setattr(hardware, "DEADLINE", 0.2)
    found = try_hardware(tmp_path, emulator(tmp_path / "home", "exec sleep 60"), kernel)
    assert not found.usable
    assert f"a guest on {device} did not come up" in found.reason


def test_a_spoilt_finding_is_found_anew(tmp_path: Path, kernel: Kernel, device: Path) -> None:
    """A file that is no finding is no harm."""
    (tmp_path / "hardware.json").write_text("{")
    assert device.exists()
    assert known_hardware(tmp_path) is None
    assert try_hardware(tmp_path, emulator(tmp_path / "home", f"echo {TRIAL}"), kernel).usable
