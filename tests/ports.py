"""Ports for servers of the tests."""

from __future__ import annotations

import os
import random
import socket

# The kernel gives out others by itself, from 32768 on, to whoever wants any; and processes that
# test at the same time, which cannot see who is about to listen, have each their own.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw7").removeprefix("gw")) % 8
_left = list(range(20_000 + 1500 * _worker, 21_500 + 1500 * _worker))
random.SystemRandom().shuffle(_left)


def free_port(addresses: tuple[str, ...] = ("127.0.0.1",)) -> int:
    """A port that is free on all these addresses now, and that nobody here was given before."""
    while True:
        port = _left.pop()
        try:
            for address in addresses:
                with socket.socket() as probe:
                    probe.bind((address, port))
        except OSError:
            continue
        return port


def free_address() -> str:
    """A loopback address with a port that nobody listens on now."""
    return f"127.0.0.1:{free_port()}"
