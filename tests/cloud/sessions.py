"""What tests of SSH do beside running its clients: agents, terminals, sockets, and waiting."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cloud.openssh import DEADLINE, Me, run


@contextlib.contextmanager
def agent_of(me: Me) -> Iterator[dict[str, str]]:
    path = me.home / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        until(lambda: answers(path))
        environment = {"SSH_AUTH_SOCK": str(path)}
        assert run(["ssh-add", "-q", str(me.key)], environment=environment).code == 0
        yield environment
    finally:
        process.terminate()
        process.wait(DEADLINE)


def answers(path: Path) -> bool:
    """Whether somebody listens at a unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def line(process: subprocess.Popen[bytes]) -> str:
    """The next line a program prints."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], DEADLINE)
    found = process.stdout.readline().decode().strip() if ready else ""
    if not found and process.poll() is not None and process.stderr is not None:
        raise AssertionError(process.stderr.read().decode())
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=DEADLINE)


def ask(port: int, text: bytes, socks_to: int | None = None) -> bytes:
    """Send through a local port, or through a SOCKS proxy there, and read to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        if socks_to is not None:
            sock.sendall(b"\5\1\0")
            assert sock.recv(2) == b"\5\0"
            sock.sendall(b"\5\1\0\1\x7f\0\0\1" + struct.pack(">H", socks_to))
            assert sock.recv(10)[:2] == b"\5\0"
        sock.sendall(text)
        found = b""
        while piece := sock.recv(99):
            found += piece
        return found


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_until(terminal: int, *wanted: bytes) -> bytes:
    said, deadline = b"", time.monotonic() + DEADLINE
    while not all(each in said for each in wanted):
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, said
        said += os.read(terminal, 4096)
    return said


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
