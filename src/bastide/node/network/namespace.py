"""Work in the network namespace of another process."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bastide.node.errors import Conflict

_CLONE_NEWNET = 0x40000000


@contextmanager
def network_of(pid: int) -> Iterator[int]:
    """A descriptor of the process's network namespace.

    Raises:
        Conflict: there is no such process, or its namespace is the host's own.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Conflict(f"process {pid} has no network namespace: {error.strerror}") from None
    try:
        host = Path("/proc/self/ns/net").stat()
        theirs = os.fstat(descriptor)
        if (host.st_dev, host.st_ino) == (theirs.st_dev, theirs.st_ino):
            raise Conflict(f"process {pid} is in the host's network namespace")
        yield descriptor
    finally:
        os.close(descriptor)


def run_inside(namespace: int, work: Callable[[], None]) -> None:
    """Run `work` in a network namespace, in a thread that enters it and then ends.

    Raises whatever `work` raises.
    """
    failure: list[BaseException] = []

    def body() -> None:
        try:
            _enter(namespace)
            work()
        except BaseException as error:  # noqa: BLE001 - carried to the caller below
            failure.append(error)

    thread = threading.Thread(target=body, name="network-namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(ctypes.c_int(namespace), ctypes.c_int(_CLONE_NEWNET)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
