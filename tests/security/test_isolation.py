"""What root in a workspace can do to the host: tried from inside, through the gateway."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.inside import Inside

from bastide.client import Bastide

pytestmark = [
    pytest.mark.cloud,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls"),
]

REFUSED = {"EPERM", "EACCES", "ENOSYS"}
UNWRITABLE = (
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/panic",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/sys/class/net/eth0/mtu",
    "/sys/fs/cgroup/release_agent",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/pids/pids.max",
    "/sys/fs/cgroup/memory/release_agent",
    "/proc/1/oom_score_adj/none",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/.bastide/bin/tini",
    "/.bastide/agent/main.pyc",
)
UNREADABLE = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/kmsg",
    "/proc/kallsyms",
    "/proc/sched_debug",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/vda",
    "/dev/loop0",
    "/dev/fuse",
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/loop-control",
    "/proc/1/mem",
)
DEVICES = {
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "core",
    "fd", "stdin", "stdout", "stderr",
}  # fmt: skip


def test_calls_that_reach_into_the_kernel_are_refused(inside: Inside) -> None:
    """Mounts, modules, namespaces, bpf, keys, io_uring, clocks, tracing: no call gets through."""
    ends = inside.call("calls")
    assert {name: end for name, end in ends.items() if end not in REFUSED} == {}


def test_sockets_that_see_the_traffic_of_others_are_refused(inside: Inside) -> None:
    """Packet, raw, vsock, netfilter and kernel crypto sockets cannot be opened."""
    ends = inside.call("raw_sockets")
    refused = REFUSED | {"EAFNOSUPPORT", "EPROTONOSUPPORT"}
    assert {name: end for name, end in ends.items() if end not in refused} == {}


def test_kernel_settings_cannot_be_written(inside: Inside) -> None:
    """/proc/sys, sysrq, core_pattern, cgroup files, fixed mounts: nothing takes a byte."""
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    assert {path: end for path, end in inside.call("writes", paths=UNWRITABLE).items()
            if end == "ok"} == {}  # fmt: skip
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_masked_and_host_files_hold_nothing(inside: Inside, cloud: Cloud) -> None:
    """Masked paths are empty, devices absent, and the host's own files are nowhere."""
    settings = cloud.settings
    mine = (
        settings.state_dir / "db" / "bastide.sqlite3",
        settings.state_dir / "secrets" / "credentials.json",
        settings.credentials_file,
        settings.run_dir / "machines" / inside.id / "boot.json",
        settings.node_socket,
        settings.api_socket,
        settings.edge_socket,
    )
    assert all(path.exists() for path in mine)
    found = inside.call("reads", paths=[*UNREADABLE, *map(str, mine)])
    holding = {path: what for path, what in found.items() if what.removeprefix("holds ").strip()
               and what.startswith("holds ") and path != "/proc/kallsyms"}  # fmt: skip
    assert holding == {}
    assert "0000000000000000" in found["/proc/kallsyms"] or found["/proc/kallsyms"] in REFUSED, (
        "addresses of the kernel are not told"
    )
    assert {found[str(path)] for path in mine} == {"ENOENT"}


def test_no_socket_of_the_host_is_in_sight(inside: Inside, cloud: Cloud) -> None:
    """Neither as a file nor by an abstract name; the host has both."""
    settings = cloud.settings
    assert all(
        path.is_socket()
        for path in (settings.node_socket, settings.api_socket, settings.edge_socket)
    )
    assert inside.call("sockets") == []
    found = inside.sh("find / -xdev -type s 2>/dev/null; find /run /dev -type s").stdout
    assert found == ""


def test_only_its_own_processes_are_in_sight(inside: Inside, cloud: Cloud) -> None:
    """/proc shows the machine's own; a signal to a process of the host finds nobody."""
    found = inside.call("processes")
    commands = {item["command"] for item in found.values()}
    assert commands <= {"/.bastide/bin/tini", "/.bastide/bin/python3.11", "python3"}, commands
    pids = [item["pid"] for item in cloud.json("status")["processes"].values()]
    ends = inside.call("kills", pids=[*pids, 2**22 - 1])
    assert {pid: end for pid, end in ends.items() if end != "ESRCH" and pid not in found} == {}


def test_descriptors_lead_nowhere_outside(inside: Inside) -> None:
    """A fresh command has three descriptors; the agent's are pipes, sockets and its own files."""
    assert set(inside.call("descriptors")) == {"0", "1", "2"}
    for item in inside.call("processes").values():
        for target in item["descriptors"]:
            assert (
                not target.startswith("/")
                or target == "/dev/null"
                or (target.startswith(("/.bastide/", "/opt/", "/proc")))
            ), item


def test_no_held_directory_is_a_way_out(inside: Inside) -> None:
    """Threat 2: from no working directory, root or descriptor does `..` lead out of the root."""
    assert inside.call("ways_out") == []


def test_ids_and_capabilities(inside: Inside) -> None:
    """Root in here is nobody out there, holds few capabilities and can gain none."""
    status = dict(
        line.split(":\t", 1) for line in inside.sh("cat /proc/self/status").stdout.splitlines()
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    dangerous = 1 << 21 | 1 << 12 | 1 << 13 | 1 << 19 | 1 << 27 | 1 << 2 | 1 << 16 | 1 << 17
    assert int(status["CapBnd"], 16) & dangerous == 0
    assert int(status["CapEff"], 16) & ~int(status["CapBnd"], 16) == 0
    first = inside.sh("cat /proc/self/uid_map").stdout.split()
    assert first[0] == "0"
    assert int(first[1]) >= 1_000_000
    assert int(first[2]) == 65_536


def test_setuid_programs_give_nothing(inside: Inside) -> None:
    """A set-user-id program that nobody starts goes on as nobody."""
    assert inside.call("setuid") == {"effective": 65534}


def test_no_device_can_be_made_and_few_are_there(inside: Inside) -> None:
    """No mknod gets through anywhere, and /dev holds only what every program needs."""
    assert set(inside.call("devices").values()) <= REFUSED
    assert set(inside.sh("ls -A /dev").stdout.split()) <= DEVICES


def test_the_programs_of_the_host_stay_as_they_are(inside: Inside, cloud: Cloud) -> None:
    """Threat 1: writing through /proc/self/exe, of any process, changes no file of the host."""
    programs = [
        path
        for folder in ("runtime", "bundle")
        for path in (cloud.settings.state_dir / folder).resolve().rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    before = {path: digest(path) for path in programs}
    assert len(before) > 10
    done = inside.sh(
        "for pid in /proc/[0-9]*; do"
        " printf x 2>/dev/null > $pid/exe && echo overwrote $pid;"
        " printf x 2>/dev/null >> $pid/exe && echo added to $pid; done;"
        " cp /proc/1/exe /root/exe; printf '#!/proc/self/exe\\n' > /root/loop;"
        " chmod +x /root/loop; timeout 5 /root/loop; echo tried"
    )
    assert done.stdout == "tried\n"
    assert {path: digest(path) for path in programs} == before


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_no_link_can_be_planted_where_the_host_mounts(client: Bastide, inside: Inside) -> None:
    """Threats 3-5: what the host mounts over can be neither replaced nor moved away."""
    paths = inside.sh("awk '{print $2}' /proc/self/mounts | grep -v '^/proc/\\|^/$'").stdout.split()
    assert {"/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/dev", "/.bastide"} <= set(paths)
    ends = inside.call("links", paths=paths, target="/proc/sysrq-trigger")
    assert {attempt: end for attempt, end in ends.items() if end == "ok"} == {}
    client.workspaces.restart(inside.id)
    assert "nameserver" in inside.sh("cat /etc/resolv.conf").stdout
