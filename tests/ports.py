"""Ports for servers of the tests."""

from __future__ import annotations

import socket

_given: set[int] = set()


def free_port(addresses: tuple[str, ...] = ("127.0.0.1",)) -> int:
    """A port that is free on all these addresses now, and that nobody here was given before.

    The kernel names one of the free ones at random, the same one again if nobody listens yet.
    """
    while (port := _free_port(addresses)) in _given:
        pass
    _given.add(port)
    return port


def _free_port(addresses: tuple[str, ...]) -> int:
    while True:
        with socket.socket() as first:
            first.bind((addresses[0], 0))
            port: int = first.getsockname()[1]
            try:
                for address in addresses[1:]:
                    with socket.socket() as other:
                        other.bind((address, port))
            except OSError:
                continue
            return port


def free_address() -> str:
    """A loopback address with a port that nobody listens on now."""
    return f"127.0.0.1:{free_port()}"
