"""The OCI configuration and the seccomp profile, as documents."""

from __future__ import annotations

import errno
import json
import resource
from pathlib import Path

import pytest

from bastide.domain.machine import AGENT_ARGV, AGENT_ENV, Resources
from bastide.node.machines import oci, seccomp
from bastide.node.machines.idrange import IdRange


def container(**changes: object) -> oci.Container:
    base = {
        "hostname": "box",
        "argv": AGENT_ARGV,
        "env": AGENT_ENV,
        "rootfs": Path("/run/x/rootfs"),
        "bundle": Path("/var/bundle"),
        "resolv_conf": Path("/run/x/resolv.conf"),
        "hosts": Path("/run/x/hosts"),
        "hostname_file": Path("/run/x/hostname"),
        "ids": IdRange(1_065_536),
        "resources": Resources(cpus=0.5, memory_mb=256, disk_mb=1024, pids=99),
        "cgroup": "/bastide/ws_00000001",
        "limits_swap": True,
        "criu": Path("/run/bastide/criu.conf"),
    }
    return oci.Container(**{**base, **changes})  # type: ignore[arg-type]


@pytest.fixture
def document() -> dict[str, object]:
    """A whole configuration, as it would be read back."""
    found: dict[str, object] = json.loads(json.dumps(oci.configuration(container())))
    return found


def test_all_namespaces_are_new() -> None:
    """Each namespace is made by the runtime, none is joined by path."""
    namespaces = oci.configuration(container())["linux"]["namespaces"]
    assert [item["type"] for item in namespaces] == [
        "user", "pid", "mount", "network", "ipc", "uts", "cgroup",
    ]  # fmt: skip
    assert all(set(item) == {"type"} for item in namespaces)


def test_ids_are_the_machines_own() -> None:
    """Both mappings are the whole range and nothing more."""
    linux = oci.configuration(container())["linux"]
    expected = [{"containerID": 0, "hostID": 1_065_536, "size": 65_536}]
    assert linux["uidMappings"] == linux["gidMappings"] == expected


def test_limits_are_those_of_the_resources() -> None:
    """Cores become a quota, MiB become bytes; devices are refused but for the runtime's own."""
    resources = oci.configuration(container())["linux"]["resources"]
    assert resources["cpu"] == {"quota": 50_000, "period": 100_000}
    assert resources["memory"] == {"limit": 256 * 2**20, "swap": 256 * 2**20}
    bare = oci.configuration(container(limits_swap=False))["linux"]["resources"]
    assert bare["memory"] == {"limit": 256 * 2**20}
    assert resources["pids"] == {"limit": 99}
    assert resources["devices"] == [{"allow": False, "access": "rwm"}]


def test_rlimits_are_not_above_our_own() -> None:
    """Without CAP_SYS_RESOURCE no hard limit can be raised: none is asked for."""
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = {item["type"]: item for item in oci.configuration(container())["process"]["rlimits"]}
    nofile = limits["RLIMIT_NOFILE"]
    assert nofile["soft"] <= nofile["hard"]
    assert ours == resource.RLIM_INFINITY or nofile["hard"] <= ours
    assert limits["RLIMIT_CORE"]["soft"] == 0


def test_privileges_are_few() -> None:
    """No new privileges; none of the capabilities that reach the kernel or the network."""
    process = oci.configuration(container())["process"]
    assert process["noNewPrivileges"] is True
    for name, capabilities in process["capabilities"].items():
        assert name in {"bounding", "effective", "permitted"}
        assert not set(capabilities) & {
            "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_PTRACE", "CAP_MKNOD",
            "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_DAC_READ_SEARCH", "CAP_BPF", "CAP_SYS_RESOURCE",
        }  # fmt: skip


def test_host_files_are_bound_read_only() -> None:
    """Every bind mount is read-only, without devices and set-user-id programs."""
    binds = [item for item in oci.configuration(container())["mounts"] if item["type"] == "bind"]
    assert {item["destination"] for item in binds} == {
        "/.bastide", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname",
    }  # fmt: skip
    assert all({"ro", "nosuid", "nodev", "rprivate"} <= set(item["options"]) for item in binds)


def test_memory_file_systems_are_bounded() -> None:
    """Each tmpfs has a size."""
    for item in oci.configuration(container())["mounts"]:
        if item["type"] == "tmpfs":
            assert any(option.startswith("size=") for option in item["options"]), item


def test_process_one_has_the_agents_environment_only(document: dict[str, object]) -> None:
    """Nothing of the workspace's environment is in the configuration."""
    process = document["process"]
    assert isinstance(process, dict)
    assert process["args"] == list(AGENT_ARGV)
    assert process["env"] == [f"{name}={value}" for name, value in AGENT_ENV.items()]


def test_what_leaks_of_the_host_is_masked() -> None:
    """The usual files of /proc and /sys are hidden or read-only."""
    linux = oci.configuration(container())["linux"]
    assert {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"} <= set(
        linux["maskedPaths"]
    )
    assert {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"} <= set(
        linux["readonlyPaths"]
    )


FLAGS = 0x80800  # SOCK_CLOEXEC, SOCK_NONBLOCK
DEEP = (
    *("mount", "umount2", "unshare", "setns", "bpf", "keyctl", "add_key", "request_key"),
    *("userfaultfd", "perf_event_open", "io_uring_setup", "init_module", "kexec_load"),
    *("open_by_handle_at", "move_mount", "fsopen", "pivot_root"),
)


def rules(name: str) -> list[dict[str, object]]:
    return [rule for rule in seccomp.profile("x86_64")["syscalls"] if name in rule["names"]]


def test_what_is_not_listed_is_unknown() -> None:
    """The default is ENOSYS, on this processor's own architecture alone."""
    profile = seccomp.profile("x86_64")
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["defaultErrnoRet"] == 38
    assert profile["architectures"] == ["SCMP_ARCH_X86_64"]
    assert seccomp.profile("aarch64")["architectures"] == ["SCMP_ARCH_AARCH64"]


def test_no_call_is_both_allowed_and_refused() -> None:
    """The two lists do not meet, and no name is listed twice."""
    assert not set(seccomp.ALLOWED) & set(seccomp.DENIED)
    assert len(set(seccomp.ALLOWED)) == len(seccomp.ALLOWED)
    assert len(set(seccomp.DENIED)) == len(seccomp.DENIED)


@pytest.mark.parametrize("name", DEEP)
def test_deep_calls_are_refused(name: str) -> None:
    """Each is refused with EPERM, with no condition to slip past."""
    assert rules(name) == [
        {**rules(name)[0], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ]
    assert "args" not in rules(name)[0]


def test_clone_makes_no_namespaces() -> None:
    """Clone is allowed only when none of the namespace flags is set; clone3 is unknown."""
    assert rules("clone") == [
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        }
    ]
    assert rules("clone3")[0]["errnoRet"] == 38


def outcome(*call: int) -> int:
    """What the rules say of `socket(*call)`: 0 is allowed, else the error."""

    def holds(argument: dict[str, object]) -> bool:
        index, value = argument["index"], argument["value"]
        assert isinstance(index, int)
        assert isinstance(value, int)
        if argument["op"] == "SCMP_CMP_MASKED_EQ":
            return call[index] & value == argument["valueTwo"]
        assert argument["op"] == "SCMP_CMP_EQ"
        return call[index] == value

    found = set()
    for rule in rules("socket"):
        arguments = rule["args"]
        assert isinstance(arguments, list)
        indexes = [argument["index"] for argument in arguments]
        assert len(set(indexes)) == len(indexes), "runc makes several rules of such a one"
        if all(holds(argument) for argument in arguments):
            found.add(0 if rule["action"] == "SCMP_ACT_ALLOW" else rule["errnoRet"])
    assert len(found) <= 1, "the rules contradict each other"
    number = found.pop() if found else errno.ENOSYS
    assert isinstance(number, int)
    return number


def test_sockets_are_of_few_families() -> None:
    """Unix and three netlink protocols; packet, vsock and crypto are refused."""
    for call in ((1, 1, 0), (1, 5 | FLAGS, 0), (16, 3, 0), (16, 3 | FLAGS, 4), (16, 2, 15)):
        assert outcome(*call) == 0, call
    for family in (17, 38, 40):
        assert outcome(family, 3, 0) == errno.EAFNOSUPPORT
    for protocol in (9, 12):
        assert outcome(16, 3, protocol) == errno.EPROTONOSUPPORT


@pytest.mark.parametrize(("family", "ping", "other"), [(2, 1, 58), (10, 58, 1)])
def test_internet_sockets_are_tcp_udp_and_ping(family: int, ping: int, other: int) -> None:
    """With or without flags; raw sockets get EPERM, as ping's fall-back wants it."""
    for flags in (0, 0x800, 0x80000, FLAGS):
        for kind, protocols in ((1, (0, 6, 262)), (2, (0, 17, ping))):
            for protocol in protocols:
                assert outcome(family, kind | flags, protocol) == 0
                assert outcome(family, kind | flags, 1 << 32 | protocol) == 0  # as the kernel
            for protocol in (33, 132, 136, other, 6 if kind == 2 else 17):
                assert outcome(family, kind | flags, protocol) == errno.EPROTONOSUPPORT
            assert outcome(family, kind | flags, 255) == errno.ENOSYS
        for protocol in (0, 1, 6, 58, 255):
            assert outcome(family, 3 | flags, protocol) == errno.EPERM
            for kind in (0, 4, 5, 6, 10):
                assert outcome(family, kind | flags, protocol) == errno.ESOCKTNOSUPPORT
