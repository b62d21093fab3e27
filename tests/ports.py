"""Ports for servers of the tests."""

from __future__ import annotations

import socket


def free_port(addresses: tuple[str, ...] = ("127.0.0.1",)) -> int:
    """A port that is free on all these addresses now."""
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
