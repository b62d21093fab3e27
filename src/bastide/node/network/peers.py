"""The host's own ends of connections to a machine that is gone."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address

_TIMEOUT = 10.0


def cut(address: IPv4Address, ports: Sequence[int] = ()) -> None:
    """Let the host's processes know that nobody is at the other end any more. Blocks briefly.

    With `ports` it is said of connections to those alone.

    A kernel that is ended takes no leave: without this the gateway would wait for answers, and
    send to connections that a machine which came back knows from another moment. On a host whose
    kernel cannot, they find out by themselves, later.
    """
    ends = [f"{address}:{port}" for port in ports] or [str(address)]
    which = " or ".join(f"dst {end}" for end in ends)
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            ["ss", "--kill", "--no-header", "--tcp", *which.split()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=False,
        )
