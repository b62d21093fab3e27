"""What a process in a machine has, sees and can do: facts read from inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.host.node.conftest import spec
from tests.host.node.inside import Done, inside, shell

from bastide.domain.machine import RuntimeAccess
from bastide.node.disks import Disks
from bastide.node.machines.container import Container
from bastide.node.node import Node

pytestmark = pytest.mark.host

MACHINE = spec().id


@pytest.fixture
async def running(plain_node: Node) -> Node:
    """A node with one running machine."""
    await plain_node.fleet.create(spec())
    await plain_node.power.start(spec())
    return plain_node


async def sh(node: Node, text: str, seconds: float = 30.0) -> Done:
    return await shell(node.host, MACHINE, text, seconds)


async def test_ids_capabilities_and_filters(running: Node) -> None:
    """Root inside is a high id outside, with few capabilities, a filter and no way to gain any."""
    status = (await sh(running, "cat /proc/1/status")).output
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert lines["CapBnd"] == lines["CapEff"] == "00000000000405fb"
    assert lines["CapAmb"] == "0000000000000000"
    assert lines["NoNewPrivs"] == "1"
    assert lines["Seccomp"] == "2"
    assert (await sh(running, "cat /proc/self/uid_map")).output.split() == [
        "0",
        "1500000000",
        "65536",
    ]


async def test_ranges_of_two_machines_do_not_meet(running: Node) -> None:
    """A second machine has host ids of its own."""
    other = spec(2)
    await running.fleet.create(other)
    await running.power.start(other)
    mapped = (await shell(running.host, other.id, "cat /proc/self/uid_map")).output.split()
    assert mapped == ["0", str(1_500_000_000 + 65_536), "65536"]


async def test_every_namespace_is_its_own(running: Node) -> None:
    """No namespace that separates is shared with the host."""
    for name in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"):
        found = (await inside(running.host, MACHINE, "readlink", f"/proc/1/ns/{name}")).output
        assert found.startswith(f"{name}:[")
        assert found != os.readlink(f"/proc/self/ns/{name}")  # noqa: PTH115


async def test_no_descriptor_of_the_node_leaks(running: Node) -> None:
    """Process 1 has its three streams and nothing else of the host."""
    found = (await sh(running, "ls -l /proc/1/fd")).output
    numbers = [line.split()[8] for line in found.splitlines() if "->" in line]
    assert set(numbers) <= {"0", "1", "2", "10"}  # 10 is the shell's own copy
    assert "/" not in found.replace("/dev/null", "").replace("/.bastide", "").replace("/proc", "")


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /mnt",
        "umount /proc",
        "unshare --user true",
        "unshare --net true",
        "unshare --mount true",
        "mknod /root/sda b 8 0",
        "chroot /proc/1/root /bin/true && hostname stolen",
        "echo 1 > /proc/sys/kernel/panic",
        "echo x > /proc/sysrq-trigger",
        "echo core > /proc/sys/kernel/core_pattern",
        "echo 0 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
        "touch /sys/fs/cgroup/file",
        "echo -1000 > /proc/self/oom_score_adj",
        "touch /.bastide/file",
        "touch /etc/resolv.conf/x || echo x >> /etc/resolv.conf",
        "mount -o remount,rw /.bastide",
        "dmesg",
        "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
        "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
        "python3 -c 'import socket; socket.socket(38, 5)'",
        "python3 -c 'import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)'",
        "test -s /proc/kcore || test -s /proc/keys",
        "ls -A /sys/firmware | grep .",
        "cat /dev/vda || cat /dev/mem || cat /dev/loop0",
    ],
)
async def test_refused(running: Node, attempt: str) -> None:
    """Mounts, namespaces, devices, kernel settings, raw sockets: refused from inside."""
    done = await sh(running, attempt)
    assert done.code not in (0, 127), done.output


@pytest.mark.parametrize(
    "number",
    {
        "bpf": 321,
        "perf_event_open": 298,
        "userfaultfd": 323,
        "keyctl": 250,
        "add_key": 248,
        "io_uring_setup": 425,
        "setns": 308,
        "init_module": 175,
        "open_tree": 428,
        "fsopen": 430,
        "mount_setattr": 442,
        "open_by_handle_at": 304,
        "kexec_load": 246,
        "swapon": 167,
        "reboot": 169,
    }.values(),
)
async def test_system_calls_are_refused(running: Node, number: int) -> None:
    """Calls that reach deep into the kernel fail with EPERM, whatever their arguments."""
    code = f"import ctypes; l=ctypes.CDLL(None,use_errno=True); l.syscall({number},0,0,0,0,0); print(ctypes.get_errno())"  # noqa: E501
    assert (await sh(running, f'python3 -c "{code}"')).output == "1"


async def test_internet_sockets(running: Node) -> None:
    """TCP, UDP, multipath TCP and ping on both families; the errors of others are the usual."""
    code = """
import ctypes
l = ctypes.CDLL(None, use_errno=True)
for call in ((2,1,0), (2,0x80801,6), (2,1,262), (2,2,17), (10,0x80002,0), (10,1,6), (2,2,1),
             (10,2,58), (2,3,1), (10,3,58), (2,5,132), (2,1,132), (10,2,136), (2,2,255)):
    print(0 if l.socket(*call) >= 0 else ctypes.get_errno(), end=" ")
"""
    done = await sh(running, f"python3 -c '{code}'")
    assert done.output.split() == "0 0 0 0 0 0 0 0 1 1 94 93 93 38".split()  # noqa: SIM905


async def test_clone3_is_unknown(running: Node) -> None:
    """clone3, whose flags cannot be checked, answers ENOSYS and programs fall back to clone."""
    code = "import ctypes; l=ctypes.CDLL(None,use_errno=True); l.syscall(435,0,0); print(ctypes.get_errno())"  # noqa: E501
    assert (await sh(running, f'python3 -c "{code}"')).output == "38"
    assert (await sh(running, "python3 -c 'import threading; print(1)'")).output == "1"


async def test_host_processes_and_files_are_out_of_sight(running: Node) -> None:
    """Only its own processes are there, and no path of the host but through the fixed mounts."""
    processes = (await sh(running, "ls -d /proc/[0-9]*")).output.split()
    assert len(processes) <= 5
    mounts = (await sh(running, "cat /proc/self/mountinfo")).output
    assert "/machine.json" not in mounts
    assert "boot.json" not in mounts
    assert (await sh(running, f"ls {running.host.settings.state_dir}")).code != 0


async def test_fixed_mounts_are_read_only(running: Node) -> None:
    """Bundle, name files, /sys and cgroups cannot be written to."""
    table = (await sh(running, "cat /proc/self/mounts")).output
    options = {line.split()[1]: line.split()[3].split(",") for line in table.splitlines()}
    fixed = {"/.bastide", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/sys", "/proc/sys"}
    for point in fixed:
        assert "ro" in options[point], point
    for point in ("/", "/.bastide", "/run", "/dev/shm"):
        assert {"nosuid"} <= set(options[point]), point
        assert point == "/dev" or "nodev" in options[point]


async def test_names_are_those_of_the_workspace(running: Node) -> None:
    """Host name, hosts and name servers are the machine's."""
    assert (await sh(running, "hostname")).output == "workspace"
    address = str(running.host.network.address(MACHINE))
    assert f"{address} workspace" in (await sh(running, "cat /etc/hosts")).output
    servers = (await sh(running, "cat /etc/resolv.conf")).output.split()[1::2]
    assert tuple(servers) == running.host.network.nameservers


async def test_ids_on_the_disk_are_plain(running: Node, tmp_path: Path) -> None:
    """What belongs to 33 inside belongs to 33 on the disk, also copied-up and removed files."""
    done = await sh(
        running,
        "echo x > /root/new; chown 33:44 /root/new; mkdir /root/dir; rm /etc/motd; "
        "echo '# x' >> /etc/bash.bashrc; chown 33 /etc/bash.bashrc; stat -c %u:%g /root/new",
    )
    assert done.output == "33:44"
    await running.power.stop(MACHINE, 5)
    disks: Disks = running.host.disks
    point = tmp_path / "disk"
    disks.mount(MACHINE, point)
    try:
        upper = point / "upper"
        owners = {
            str(path.relative_to(upper)): (path.lstat().st_uid, path.lstat().st_gid)
            for path in upper.rglob("*")
        }
    finally:
        disks.unmount(point)
    assert owners["root/new"] == (33, 44)
    assert owners["root/dir"] == (0, 0)
    assert owners["etc/bash.bashrc"] == (33, 0)
    assert owners["etc/motd"] == (0, 0)  # the mark that it is gone
    assert all(uid < 65_536 and gid < 65_536 for uid, gid in owners.values())


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "run", "etc", ".bastide"])
async def test_a_symlink_at_a_mount_point_stops_the_boot(
    plain_node: Node, tmp_path: Path, name: str
) -> None:
    """A workspace that turned a mount point into a link does not boot, and says why."""
    await plain_node.fleet.create(spec())
    point = tmp_path / "disk"
    plain_node.host.disks.mount(MACHINE, point)
    (point / "upper" / name).symlink_to("/proc/sys")
    plain_node.host.disks.unmount(point)
    machine = Container(MACHINE, plain_node.host)
    with pytest.raises(Exception, match=f"/{name} is a symbolic link"):
        await plain_node.power.start(spec())
    assert machine.process is None
    status = plain_node.fleet.status(MACHINE)
    assert status.state == "failed"
    assert "symbolic link" in (status.error or "")


async def test_secrets_are_in_no_file_of_the_boot(plain_node: Node) -> None:
    """Tokens and environment are told over the pipe: no file the machine can read holds them."""
    secret = "ab" * 32
    full = spec(
        env={"PASSWORD": "hunter2hunter2"}, runtime=RuntimeAccess(enabled=True, token=secret)
    )
    await plain_node.fleet.create(full)
    await plain_node.power.start(full)
    run = plain_node.host.machines_dir / MACHINE
    control = plain_node.fleet.status(MACHINE).control
    assert control is not None
    state = plain_node.host.settings.state_dir / "machines" / MACHINE / "machine.json"
    for path in (state, *(p for p in run.iterdir() if p.is_file())):
        text = path.read_text()
        assert secret not in text, path
        assert "hunter2" not in text, path
        if path.name != "boot.json":
            assert control.token not in text, path
    assert (run / "boot.json").stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o600
