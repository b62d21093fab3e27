"""What a side of a connection knows of the other."""

from __future__ import annotations

import socket


def over(connection: socket.socket) -> bool:
    """Whether it is known at this moment that the other side has closed it, or is gone."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
