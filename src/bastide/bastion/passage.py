"""One connection through the bastion: a client's channel and the workspace's SSH port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncssh

from bastide.domain.machine import SSH_PORT

EARLY_BYTES = 64 * 1024


class Far(asyncssh.SSHForwarder):
    """The workspace's end. What it says before the channel is there is kept until it is.

    An SSH server speaks first: with nobody to pass its greeting on to, it would be lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self._early: list[bytes] = []
        self._kept = 0
        self._ended_early = False
        self._through = False

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Pass on, or keep; no more is read than can be kept."""
        if self._through:
            super().data_received(data, datatype)
            return
        self._early.append(data)
        self._kept += len(data)
        if self._kept > EARLY_BYTES:
            self.pause_reading()

    def eof_received(self) -> bool:
        """Pass on, or keep."""
        if self._through:
            return super().eof_received()
        self._ended_early = True
        return True

    def let_through(self) -> None:
        """The channel is there: say what was kept, and go on."""
        self._through = True
        if self._transport is None:  # gone already
            self.close()
            return
        for data in self._early:
            super().data_received(data)
        if self._kept > EARLY_BYTES:
            self.resume_reading()
        self._early.clear()
        if self._ended_early and not super().eof_received():
            self.close()


class Passage(asyncssh.SSHForwarder):
    """The client's end, which says when it ends."""

    def __init__(self, far: Far, ended: Callable[[Passage, None], object]) -> None:
        super().__init__(far)
        self._far = far
        self._ended = ended

    def session_started(self) -> None:
        """The channel is there."""
        self._far.let_through()

    def close(self) -> None:
        """End both sides."""
        self._ended(self, None)
        super().close()


async def connect(address: str) -> Far:
    """A connection to the SSH port of a workspace.

    Raises:
        OSError: it cannot be had.
    """
    _, far = await asyncio.get_running_loop().create_connection(Far, address, SSH_PORT)
    return far
