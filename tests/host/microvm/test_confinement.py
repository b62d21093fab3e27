"""The emulator of a running machine, as the host's kernel sees it: what a guest that takes it over
would have in its hands.
"""  # noqa: D205 - one thought

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.host.microvm.conftest import ID_BASE
from tests.host.node.conftest import READY, script, spec

from bastide.node.machines.host import Host
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.microvm.jail import ceiling_mb
from bastide.node.machines.microvm.machine import MicroVm
from bastide.node.machines.microvm.qemu import Accelerator
from bastide.settings import Settings

pytestmark = pytest.mark.host

IDS = IdRange(ID_BASE)
SPEC = spec()
MIB = 2**20
OURSELVES = Path("/proc/self")
NAMESPACES = ("mnt", "net", "pid", "ipc", "uts", "cgroup")
DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue"}
LINKS = {"fd", "stdin", "stdout", "stderr", "core"}
CHARACTERS = {
    ("c", number)
    for number in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*", "10:200")
}
FILES = {"/dev/null", "/dev/net/tun", "/dev/urandom"}


@pytest.fixture
async def jailed(ground: Host, plain_bundle: None) -> AsyncIterator[Path]:
    """A running machine's emulator in /proc."""
    host = replace(ground, argv=script(READY))
    host.network.reserve(SPEC.id)
    host.disks.create(SPEC.id, SPEC.resources.disk_mb)
    machine = MicroVm(SPEC.id, host)
    try:
        record = await machine.boot(SPEC, host.images.digest("debian-12"), IDS)
        process = Path("/proc", str(record.pid))
        assert record.token not in text_of(process / "cmdline") + text_of(process / "environ")
        yield process
    finally:
        await machine.clean()
        host.disks.remove(SPEC.id)
        host.network.release(SPEC.id)


def text_of(file: Path) -> str:
    """What is in it."""
    return file.read_text()


def status_of(process: Path) -> dict[str, str]:
    """The lines of its `status`."""
    lines = (process / "status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def limits_of(process: Path) -> dict[str, str]:
    """Its hard limits."""
    lines = (process / "limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[47:68].strip() for line in lines}


async def test_it_has_nothing_but_what_it_was_given(
    jailed: Path, ground: Host, settings: Settings
) -> None:
    """Identity, capabilities, calls, namespaces, files, network, limits: one boot, all of them."""
    status = status_of(jailed)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(IDS.first)}
    assert status["Groups"] in {"", str(IDS.first)}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["Seccomp_filters"]) >= 2, "the jail's and the emulator's own"
    for name in NAMESPACES:
        theirs, ours = ((each / "ns" / name).readlink() for each in (jailed, OURSELVES))
        assert theirs != ours, name

    kvm = ground.microvm.accelerator is Accelerator.KVM
    # its root: the emulator, the guest's kernel, and nothing of the workspace or the host
    root = jailed / "root"
    assert set(os.listdir(root)) == {  # noqa: PTH208 - names alone
        "bin", "dev", "kernel", "lib", "modules", "proc", "qemu.json", "share",
    }  # fmt: skip
    assert set(os.listdir(root / "dev")) <= DEVICES | LINKS | ({"kvm"} if kvm else set())  # noqa: PTH208
    assert set(os.listdir(root / "bin")) == {"qemu"}  # noqa: PTH208
    for line in (jailed / "mountinfo").read_text().splitlines():
        fields = line.split()
        origin, point, options = fields[3], fields[4], fields[5].split(",")
        hidden = origin == "/null" and point.startswith("/proc/")
        assert "ro" in options or hidden or point.startswith("/dev"), line
        assert point in {"/", "/dev", "/kernel/vmlinux", "/kernel/initrd"} or point.startswith(
            ("/proc", "/dev/")
        ), line

    # its files: three of the workspace's, sockets, a tap, and no device of the host beside
    opened = {str(link.readlink()) for link in (jailed / "fd").iterdir()}
    known = {
        str(ground.disks.path(SPEC.id)),
        str(ground.images.directory / f"{ground.images.digest('debian-12')}.erofs"),
        str((settings.state_dir / "bundle").resolve() / "test.erofs"),
    }
    named = {name for name in opened if name.startswith("/")}
    assert known <= named <= known | FILES | ({"/dev/kvm"} if kvm else set())
    rest = {name.split(":")[0] for name in opened - named}
    assert rest <= {"socket", "anon_inode", "pipe"}

    devices = (jailed / "net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]

    limits = limits_of(jailed)
    assert limits["Max core file size"] == "0"
    assert int(limits["Max open files"]) <= 128
    assert int(limits["Max processes"]) <= 128
    assert int(limits["Max file size"]) <= 2 * 128 * MIB + 64 * MIB
    assert (jailed / "oom_score_adj").read_text().strip() == "100"

    mine = {line.rpartition(":")[2] for line in (jailed / "cgroup").read_text().splitlines()}
    assert ground.cgroups.path(SPEC.id) in mine
    usage = ground.cgroups.usage(SPEC.id)
    assert usage.memory_bytes < ceiling_mb(128, Accelerator.TCG) * MIB
    memory = ground.cgroups.root / "memory" / ground.cgroups.parent / SPEC.id
    if memory.is_dir():
        limit = int((memory / "memory.limit_in_bytes").read_text())
        assert limit == ceiling_mb(128, ground.microvm.accelerator) * MIB
        allowed = ground.cgroups.root / "devices" / ground.cgroups.parent / SPEC.id
        rules = [line.split() for line in (allowed / "devices.list").read_text().splitlines()]
        usable = {(kind, number) for kind, number, ways in rules if {"r", "w"} & set(ways)}
        assert usable <= CHARACTERS | ({("c", "10:232")} if kvm else set()), (
            "no block device, nothing but the harmless ones"
        )

    # its doors: of root alone
    sockets = list((ground.machines_dir / SPEC.id).glob("*.sock"))
    assert len(sockets) == 3
    for path in sockets:
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600)
