"""The moment at which a machine that comes back has a network namespace but no sockets yet.

A restored connection can only be put in place once its address is there, so the runtime must wait
until the node has linked the namespace. Two of the runtime's hooks do that with nothing but
coreutils and two named pipes: the first tells the node the process's id, the second waits until
the node lets go.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from bastide.node.errors import BootFailed

_TELL, _WAIT = "/usr/bin/tee", "/usr/bin/head"
_SECONDS = 60
_MOST_STATE = 256 * 1024


class Gate:
    """One passage, made in a directory of the machine; `close` it whatever happens."""

    def __init__(self, directory: Path) -> None:
        self._state = directory / "state.fifo"
        self._go = directory / "go.fifo"
        self._reading = self._holding = -1

    def open(self) -> None:
        """Make the pipes and hold them open, so that nobody waits for a missing end."""
        for path in (self._state, self._go):
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
        self._reading = os.open(self._state, flags)
        self._holding = os.open(self._go, flags)

    def hooks(self) -> dict[str, Any]:
        """The runtime's hooks, for the configuration."""
        return {
            "prestart": [
                {"path": _TELL, "args": ["tee", str(self._state)], "timeout": _SECONDS},
                {"path": _WAIT, "args": ["head", "-c1", str(self._go)], "timeout": _SECONDS},
            ]
        }

    async def reached(self) -> int:
        """Wait until the machine is there; the host's id of its first process.

        Raises:
            BootFailed: the runtime told nothing that makes sense.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Future[int] = loop.create_future()
        state = b""

        def read() -> None:
            nonlocal state
            with suppress(BlockingIOError):
                state += os.read(self._reading, 65536)
            pid = _pid(state)
            if told.done():
                return
            if pid is not None:
                told.set_result(pid)
            elif len(state) > _MOST_STATE:
                told.set_exception(BootFailed("the runtime tells a state without end"))

        loop.add_reader(self._reading, read)
        try:
            return await told
        finally:
            loop.remove_reader(self._reading)

    def let_pass(self) -> None:
        """Let the runtime go on, now or when it comes to wait."""
        os.write(self._holding, b".")

    def close(self) -> None:
        """Forget the pipes. Repeating is harmless."""
        for descriptor in (self._reading, self._holding):
            if descriptor >= 0:
                os.close(descriptor)
        self._reading = self._holding = -1
        for path in (self._state, self._go):
            path.unlink(missing_ok=True)


def _pid(state: bytes) -> int | None:
    """The process of a container's state, once all of it is there."""
    try:
        return int(json.loads(state)["pid"])
    except (ValueError, KeyError, TypeError):
        return None
