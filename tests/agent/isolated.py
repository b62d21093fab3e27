"""An agent that can harm nothing: every namespace of its own, nobody's user ids, a throw-away root.

Random deletes, writes and commands go to it. It runs from the real bundle in a root that is a
tmpfs with busybox; the host's files are not merely read-only there, they are not there at all.
Run as a program, this file makes the namespaces (`python isolated.py BUNDLE MOUNTPOINT`).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
CONTROL_TOKEN = "c0" * 32
RUNTIME_TOKEN = "ab" * 32
RUNTIME_PORT = 9990
FIRST_ID = 1_900_000_000  # of the host, for the user ids inside: they own nothing anywhere
IDS = 65536
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
EVERYTHING = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
NAMESPACES = ("mnt", "uts", "ipc", "user", "pid", "net")
MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 1, 4096, 16384, 1 << 18, 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7}  # chown, dac_override, fowner, fsetid, kill, set*id
PIVOT_ROOT = 155  # x86-64
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
libc = ctypes.CDLL(None, use_errno=True)


def kernel(result: int) -> None:
    """Raise what a system call complained of."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system, or change how one is mounted."""
    kernel(
        libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode())
    )


def make_root(bundle: str, root: str) -> None:
    """A tmpfs with busybox, the bundle read-only, and the few devices a machine has."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", data="size=256m,nr_inodes=100k,mode=755")
    for name in ("bin", "dev/pts", "etc", "proc", "root", "tmp", ".bastide"):
        Path(f"{root}/{name}").mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", f"{root}/bin/busybox")
    for applet in ("sh", "echo", "true", "false", "cat", "ls"):
        Path(f"{root}/bin/{applet}").symlink_to("busybox")
    Path(f"{root}/etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    mount(bundle, f"{root}/.bastide", flags=MS_BIND)
    subprocess.run(["mount", "-o", "remount,bind,ro", f"{root}/.bastide"], check=True)
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        Path(f"{root}/dev/{name}").touch()
        mount(f"/dev/{name}", f"{root}/dev/{name}", flags=MS_BIND)
    mount("devpts", f"{root}/dev/pts", "devpts", data="newinstance,ptmxmode=0666,mode=0620")
    Path(f"{root}/dev/ptmx").symlink_to("pts/ptmx")
    mount("proc", f"{root}/proc", "proc")


def raise_loopback() -> None:
    """The new network namespace's only interface."""
    with socket.socket() as sock:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack("16sH22x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def become_agent(bundle: str, root: str) -> None:
    """In all namespaces: make the root, give up everything else, and run the agent."""
    from bastide.domain.machine import AGENT_ARGV, AGENT_ENV  # noqa: PLC0415

    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    raise_loopback()
    make_root(bundle, root)
    os.chdir(root)
    kernel(libc.syscall(PIVOT_ROOT, b".", b"."))
    kernel(libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    for capability in range(64):
        if capability not in KEPT_CAPABILITIES:
            libc.prctl(PR_CAPBSET_DROP, capability)
    kernel(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (400, 400))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)
    os.execve(AGENT_ARGV[0], AGENT_ARGV, AGENT_ENV)


def launch(bundle: str, root: str) -> int:
    """Make the namespaces, print the pid of their first process, and wait for its end."""
    asked, ready = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel(libc.unshare(EVERYTHING))
        os.write(asked[1], b"x")
        os.read(ready[0], 1)
        first = os.fork()
        if first == 0:
            become_agent(bundle, root)
        os.write(1, f"PID {first}\n".encode())
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)
    os.read(asked[0], 1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{name}").write_text(f"0 {FIRST_ID} {IDS}\n")
    os.write(ready[1], b"x")
    os.close(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dataclass
class Isolated:
    """A running isolated agent."""

    launcher: subprocess.Popen[bytes]
    pid: int  # of the agent, as the host counts
    first: int  # of process 1 inside, likewise

    def inside(self, work: Callable[[], T]) -> T:
        """Call `work` in a thread whose sockets are in the agent's network."""
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                with Path(f"/proc/{self.pid}/ns/net").open("rb") as namespace:
                    kernel(libc.setns(namespace.fileno(), CLONE_NEWNET))
                results.append(work())
            except BaseException as error:  # noqa: BLE001  (raised below)
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def memory_kib(self) -> int:
        """Private memory of the agent (KiB)."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in rollup.splitlines()
                   if line.startswith(("Private_Clean", "Private_Dirty")))  # fmt: skip

    def exists(self, path: str) -> bool:
        """Whether something is at a path inside."""
        return os.path.lexists(f"/proc/{self.pid}/root{path}")

    def alive(self) -> bool:
        """Whether the very process that was started still runs."""
        return self.launcher.poll() is None and Path(f"/proc/{self.pid}/ns").exists()

    def ask_to_end(self, seconds: float) -> int:
        """Ask process 1 to end, as a node does; the exit code of it."""
        os.kill(self.first, signal.SIGTERM)
        return self.launcher.wait(seconds)

    def stop(self) -> None:
        """End it and everything in its namespaces."""
        self.launcher.kill()
        self.launcher.wait()


def child_of(pid: int) -> int:
    """The only child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def assert_isolated(pid: int, marker: Path) -> None:
    """See from the outside that the process shares nothing with this host."""
    for name in NAMESPACES:
        ours, its = Path(f"/proc/self/ns/{name}"), Path(f"/proc/{pid}/ns/{name}")
        assert ours.readlink() != its.readlink(), f"the agent shares the {name} namespace"
    identities = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{FIRST_ID}\t{FIRST_ID}\t{FIRST_ID}\t{FIRST_ID}" in identities
    root = Path(f"/proc/{pid}/root")
    assert sorted(entry.name for entry in root.iterdir()) == [
        ".bastide", "bin", "dev", "etc", "proc", "root", "tmp",
    ]  # fmt: skip
    assert marker.exists()
    assert not os.path.lexists(f"{root}{marker}"), "the agent sees the host's files"
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        _, _, _, _, place, options, *rest = line.split()
        kind = rest[rest.index("-") + 1]
        own = kind in ("tmpfs", "proc", "devpts") and not place.startswith("/.bastide")
        assert own or place.startswith("/dev/") or options.startswith("ro"), line


def start(
    bundle: Path, base: Path, marker: Path, read_line: Callable[[int], str], env: Sequence[str],
    **changes: object,
) -> Isolated:  # fmt: skip
    """Start one; `base` is an empty directory everyone may enter, `marker` a file of the host.

    `changes` replace parts of the boot document.
    """
    document = {
        "boot_id": "boot-1",
        "hostname": "workspace",
        "control": {"port": 9989, "token": CONTROL_TOKEN},
        "runtime": {"port": RUNTIME_PORT, "enabled": True, "token": RUNTIME_TOKEN},
        **changes,
    }
    launcher = subprocess.Popen(
        [sys.executable, __file__, str(bundle), str(base)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(env)},
    )
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    try:
        launcher.stdin.write(json.dumps(document).encode())
        launcher.stdin.close()
        first = int(read_line(launcher.stdout.fileno()).removeprefix("PID "))
        assert read_line(launcher.stdout.fileno()) == "READY"
        agent = Isolated(launcher, child_of(first), first)
        assert_isolated(agent.pid, marker)
    except BaseException:
        launcher.kill()
        launcher.wait()
        raise
    finally:
        launcher.stdout.close()
    return agent


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1], sys.argv[2]))
