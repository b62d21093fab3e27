"""What is written down of an emulator's jail, and how programs get exactly their files."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from bastide.node import spawn
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.microvm import jail
from bastide.node.machines.microvm.console import MOST, Console
from bastide.node.machines.microvm.jail import Jail, ceiling_mb
from bastide.node.machines.microvm.qemu import Accelerator

MIB = 2**20


def of(accelerator: Accelerator) -> Jail:
    """The jail of a small machine."""
    return Jail(
        home=Path("/qemu"),
        vmlinux=Path("/guest/vmlinux"),
        initrd=Path("/guest/initrd"),
        ids=IdRange(1_000_000),
        cpus=0.5,
        memory_mb=256,
        disk_bytes=64 * MIB,
        accelerator=accelerator,
        cgroup="/bastide/ws_1",
        limits_swap=True,
    )


def test_an_emulated_machine_has_no_device_and_no_right() -> None:
    """Read-only root, an id that owns nothing, no capability, no device, hard limits."""
    found = of(Accelerator.TCG).configuration(["-nodefaults"])
    process, linux = found["process"], found["linux"]
    assert found["root"]["readonly"] is True
    assert process["user"]["uid"] == process["user"]["gid"] == 1_000_000
    assert all(held == [] for held in process["capabilities"].values())
    assert process["noNewPrivileges"] is True
    assert process["args"] == ["/bin/qemu", "-L", "/share", "-nodefaults"]
    assert {each["type"] for each in linux["namespaces"]} >= {"pid", "mount", "network", "ipc"}
    assert linux["devices"] == []
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert linux["resources"]["memory"]["limit"] == ceiling_mb(256, Accelerator.TCG) * MIB
    assert linux["resources"]["memory"]["swap"] == linux["resources"]["memory"]["limit"]
    assert linux["resources"]["cpu"]["quota"] == 50_000
    assert linux["seccomp"]["defaultAction"] != "SCMP_ACT_ALLOW"
    limits = {each["type"]: each["hard"] for each in process["rlimits"]}
    assert limits["RLIMIT_FSIZE"] == (2 * 256 + 64) * MIB
    assert limits["RLIMIT_CORE"] == 0
    binds = [each for each in found["mounts"] if each["type"] == "bind"]
    assert {each["source"] for each in binds} == {"/guest/vmlinux", "/guest/initrd"}
    assert all("ro" in each["options"] for each in binds)


def test_hardware_is_one_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With KVM the jail has that device, for its id alone, and may use no other."""
    monkeypatch.setattr(jail, "_KVM", Path("/dev/null"))
    linux = of(Accelerator.KVM).configuration([])["linux"]
    (device,) = linux["devices"]
    assert (device["uid"], device["fileMode"]) == (1_000_000, 0o600)
    denied, allowed = linux["resources"]["devices"]
    assert not denied["allow"]
    assert (allowed["type"], allowed["access"]) == ("c", "rw")
    assert (allowed["major"], allowed["minor"]) == (device["major"], device["minor"]) == (1, 3)


def test_a_boot_log_is_bounded_and_knows_a_panic() -> None:
    """The last bytes are kept; a kernel's last words are one printable line."""
    console = Console()
    console.feed(b"x" * (3 * MOST))
    assert len(console.data) == MOST
    assert Console(b"all is well").panic is None
    console.feed(b"\r\n[1.0] Kernel panic - not syncing: no \x1b[31minit found.\r\nmore")
    assert console.panic == "no [31minit found."
    assert b"\r" not in console.data


async def test_a_program_gets_its_files_at_their_numbers(tmp_path: Path) -> None:
    """Whatever numbers they had here, it finds them from 0 on, and nothing else."""
    files = [os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT) for number in range(5)]
    text = "import os; [os.write(n, str(n).encode()) for n in range(5)]; os.fstat(5)"
    try:
        argv = [sys.executable, "-I", "-c", text]
        assert await spawn.run(argv, list(reversed(files)), seconds=60) == 1, "5 was not open"
        for number in (0, 1, 3, 4):
            assert (tmp_path / str(4 - number)).read_bytes() == str(number).encode()
        assert (tmp_path / "2").read_bytes().startswith(b"2Traceback")
    finally:
        for each in files:
            os.close(each)


async def test_a_program_that_does_not_end_is_ended() -> None:
    """After its time it is killed, and waited for."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        with pytest.raises(TimeoutError):
            await spawn.run(["/bin/sleep", "60"], [nothing] * 3, seconds=0.2)
        killed = await spawn.run(["/bin/sh", "-c", "kill -9 $$"], [nothing] * 3, seconds=60)
        assert killed == -signal.SIGKILL
    finally:
        os.close(nothing)
