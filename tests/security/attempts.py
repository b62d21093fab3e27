"""What hostile code tries from inside a workspace; told by JSON on the command line.

Runs with the workspace's own Python, standard library only: `python3 -c THIS NAME {"key": value}`
calls the function NAME and prints what it returns as JSON. `open`, `refused`, `silent` and
`unreachable` are how an attempt over the network ends; `ok` or the name of the error is how a
system call does.
"""

# ruff: noqa: PTH107, PTH115, PTH116, PTH120, PTH208, PTH211  (it is about the system calls)
from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)

# Numbers of x86-64, with arguments that would do something if the call were allowed.
CALLS: dict[str, tuple[int, ...]] = {
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "pivot_root": (155, 0, 0),
    "move_mount": (429, -100, 0, -100, 0, 0),
    "open_tree": (428, -100, 0, 1),
    "fsopen": (430, 0, 0),
    "mount_setattr": (442, -100, 0, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "finit_module": (313, -1, 0, 0),
    "delete_module": (176, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "kexec_file_load": (320, -1, -1, 0, 0, 0),
    "unshare": (272, 0x10000000),
    "unshare mount": (272, 0x00020000),
    "unshare net": (272, 0x40000000),
    "setns": (308, 0, 0),
    "clone newuser": (56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
    "clone newnet": (56, 0x40000000 | signal.SIGCHLD, 0, 0, 0, 0),
    "clone newpid": (56, 0x20000000 | signal.SIGCHLD, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "bpf": (321, 0, 0, 0),
    "keyctl": (250, 0, -3, 1),
    "add_key": (248, 0, 0, 0, 0, 0),
    "request_key": (249, 0, 0, 0, 0),
    "userfaultfd": (323, 0),
    "io_uring_setup": (425, 1, 0),
    "io_uring_enter": (426, 0, 0, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "open_by_handle_at": (304, 0, 0, 0),
    "fanotify_init": (300, 0, 0),
    "reboot": (169, -0x121531DF, 672274793, 0x4321FEDC, 0),
    "swapon": (167, 0, 0),
    "acct": (163, 0),
    "quotactl": (179, 0, 0, 0, 0),
    "syslog": (103, 3, 0, 0),
    "sethostname": (170, 0, 0),
    "settimeofday": (164, 0, 0),
    "clock_settime": (227, 0, 0),
    "adjtimex": (159, 0),
    "iopl": (172, 3),
    "ioperm": (173, 0, 1, 1),
    "pidfd_getfd": (438, 0, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "lookup_dcookie": (212, 0, 0, 0),
}


def calls() -> dict[str, str]:
    """How each call of `CALLS` ends, each tried in a process of its own."""
    return {name: _apart(_call, *words) for name, words in CALLS.items()}


def _call(*words: int) -> str:
    ctypes.set_errno(0)
    done = libc.syscall(*(ctypes.c_long(word) for word in words))
    return "ok" if done >= 0 else errno.errorcode[ctypes.get_errno()]


def _apart(attempt: Callable[..., str], *words: int) -> str:
    """What an attempt says in a child, which it may change or end as it likes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, attempt(*words).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said or "died"


def writes(paths: list[str]) -> dict[str, str]:
    """How writing to each path ends."""
    return {path: _ending(Path(path).write_text, "1") for path in paths}


def reads(paths: list[str]) -> dict[str, str]:
    """What each path holds (its first 200 characters), or the error."""
    found = {}
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                found[path] = "holds " + file.read(200).decode(errors="replace")
        except OSError as error:
            found[path] = errno.errorcode[error.errno or 0]
    return found


def _ending(attempt: Callable[..., object], *words: object) -> str:
    try:
        attempt(*words)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def devices() -> dict[str, str]:
    """How making a device of each kind ends, in each place one might."""
    found = {}
    for place in ("/root", "/tmp", "/dev", "/dev/shm", "/run"):
        for name, kind, number in (
            ("disk", stat.S_IFBLK, os.makedev(254, 0)),
            ("memory", stat.S_IFCHR, os.makedev(1, 1)),
        ):
            path = f"{place}/{name}"
            found[path] = _ending(os.mknod, path, kind | 0o600, number)
    return found


def kills(pids: list[int]) -> dict[str, str]:
    """How a signal to each process of the host ends (`ok`: it is a process in here)."""
    return {str(pid): _ending(os.kill, pid, 0) for pid in pids}


def descriptors() -> dict[str, str]:
    """The descriptors this process was started with, and what they are."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the listing's own
    return found


def processes() -> dict[str, dict[str, object]]:
    """Every process in sight: its command, and where its descriptors lead."""
    found: dict[str, dict[str, object]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
            links = [os.readlink(item) for item in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        found[pid] = {"command": command, "descriptors": links}
    return found


def ways_out() -> list[str]:
    """Every directory a process in sight holds, or works in, that is not below our root."""
    root = os.stat("/")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        links = [f"/proc/{pid}/cwd", f"/proc/{pid}/root"]
        with contextlib.suppress(OSError):
            links += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
        for link in links:
            try:
                os.chdir(link)
                for _ in range(64):
                    os.chdir("..")
            except OSError:
                continue  # no directory, or gone
            top = os.stat(".")
            if (top.st_dev, top.st_ino) != (root.st_dev, root.st_ino):
                found.append(link)
    return found


def links(paths: list[str], target: str) -> dict[str, str]:
    """How each way to put a link in the place of a path ends."""
    found = {}
    for path in paths:
        os.symlink(target, "/root/link")
        parent = os.path.dirname(path)
        found[f"remove {path}"] = _ending(os.remove, path)
        found[f"rename {path}"] = _ending(os.rename, path, "/root/moved")
        found[f"replace {path}"] = _ending(os.replace, "/root/link", path)
        found[f"rename parent of {path}"] = _ending(os.rename, parent, "/root/parent")
        os.remove("/root/link")
    return found


def sockets() -> list[str]:
    """Names of every unix socket in sight, abstract ones (`@`) too."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return [words[7] for line in lines if len(words := line.split()) > 7]


def raw_sockets() -> dict[str, str]:
    """How opening sockets that see or forge others' traffic ends."""
    wanted = {
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0x0300),
        "packet datagram": (socket.AF_PACKET, socket.SOCK_DGRAM, 0x0300),
        "raw icmp": (socket.AF_INET, socket.SOCK_RAW, 1),
        "raw ip": (socket.AF_INET, socket.SOCK_RAW, 255),
        "raw icmp6": (socket.AF_INET6, socket.SOCK_RAW, 58),
        "netlink netfilter": (socket.AF_NETLINK, socket.SOCK_RAW, 12),
        "netlink audit": (socket.AF_NETLINK, socket.SOCK_RAW, 9),
        "vsock": (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
        "kernel crypto": (38, socket.SOCK_SEQPACKET, 0),
    }
    return {name: _ending(socket.socket, *words) for name, words in wanted.items()}


def connect(targets: list[list[Any]], deadline: float = 0.7) -> dict[str, str]:
    """How a TCP connection to each `[host, port]` ends, tried at the same time."""
    with ThreadPoolExecutor(32) as pool:
        ends = list(pool.map(_connect, *zip(*targets, strict=True), [deadline] * len(targets)))
    return {f"{host}:{port}": end for (host, port), end in zip(targets, ends, strict=True)}


def _connect(host: str, port: int, deadline: float) -> str:
    try:
        # getaddrinfo takes the odd spellings too (0xa9fea9fe, 2852039166, 0251.0376.0251.0376)
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=1)[0]
        with socket.socket(family, kind, protocol) as tcp:
            tcp.settimeout(deadline)
            tcp.connect(address)
            return "open"
    except TimeoutError:
        return "silent"
    except (ConnectionRefusedError, PermissionError):
        return "refused"
    except OSError:
        return "unreachable"


def datagrams(targets: list[list[Any]], deadline: float = 0.7) -> dict[str, str]:
    """Whether anybody answers a datagram to each `[host, port]`."""

    def ask(target: list[Any]) -> str:
        host, port = target
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(deadline)
            try:
                udp.sendto(b"anybody?", (host, port))
                udp.recv(100)
            except OSError:
                return "silent"
        return "open"

    with ThreadPoolExecutor(32) as pool:
        ends = list(pool.map(ask, targets))
    return {f"{host}:{port}": end for (host, port), end in zip(targets, ends, strict=True)}


def setuid() -> dict[str, int]:
    """Effective ids of a set-user-id program of root's that nobody (65534) starts."""
    program = Path("/root/setuid")
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o6755)
    Path("/root").chmod(0o755)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.execv(program, [str(program), "-u"])
    os.close(writer)
    with os.fdopen(reader) as told:
        effective = int(told.read())
    os.waitpid(child, 0)
    return {"effective": effective}


def bomb(seconds: float = 2.0) -> dict[str, object]:
    """Fork without end: how many processes there came to be, and the error that stopped it."""
    end = time.monotonic() + seconds
    children: list[int] = []
    said = "ok"
    while time.monotonic() < end:
        try:
            child = os.fork()
        except OSError as error:
            said = errno.errorcode[error.errno or 0]
            break
        if child == 0:
            time.sleep(600)
            os._exit(0)
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return {"made": len(children), "error": said}


def hog() -> str:
    """Take memory until somebody stops it."""
    taken = []
    while True:
        taken.append(b"\1" * 2**20)


def fill(path: str, most_mb: int) -> dict[str, object]:
    """Write a file until an error: MiB written, and the error."""
    block = os.urandom(2**20)
    written = 0
    with Path(path).open("wb", buffering=0) as file:
        try:
            while written < most_mb:
                if file.write(block) < len(block):
                    continue
                written += 1
            os.fsync(file.fileno())
        except OSError as error:
            return {"written_mb": written, "error": errno.errorcode[error.errno or 0]}
    return {"written_mb": written, "error": "ok"}


def fill_names(directory: str, most: int) -> dict[str, object]:
    """Make empty files until an error: how many, and the error."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    for number in range(most):
        try:
            os.close(os.open(f"{directory}/{number}", os.O_CREAT | os.O_WRONLY))
        except OSError as error:
            return {"made": number, "error": errno.errorcode[error.errno or 0]}
    return {"made": most, "error": "ok"}


def main() -> None:
    """Call what is named and print what it returns."""
    attempt = globals()[sys.argv[1]]
    print(json.dumps(attempt(**json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}"))))  # noqa: T201


if __name__ == "__main__":
    main()
