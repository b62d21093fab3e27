"""The node's connections to one emulator: console, boot port and machine protocol."""

from __future__ import annotations

import socket
from typing import Any

import structlog

from bastide.node.errors import BootFailed, Conflict
from bastide.node.machines.boot import shown
from bastide.node.machines.directory import BootDirectory
from bastide.node.machines.farewell import with_signal
from bastide.node.machines.microvm import launch
from bastide.node.machines.microvm.channel import Channel, connected
from bastide.node.machines.microvm.console import Console
from bastide.node.machines.microvm.port import BootPort
from bastide.node.machines.microvm.qmp import TIMEOUT, Qmp
from bastide.node.process import Ended

PANICKED = 255
"""Exit code of a machine whose kernel gave up."""

_log = structlog.get_logger(__name__)


class Emulator:
    """One emulator whose sockets are in `directory`. `console` is all that it has printed.

    `close` ends the connections and not the emulator; another node can take them up.
    """

    def __init__(self, machine: str, directory: BootDirectory, printed: bytes = b"") -> None:
        self._machine = machine
        self._directory = directory
        self.console = Console(printed)
        self.port: BootPort | None = None
        self._qmp: Qmp | None = None
        self._serial: Channel | None = None
        self._words: Channel | None = None

    def hear(self) -> socket.socket:
        """Where it shall print why it cannot start; close it once the emulator has it."""
        here, there = socket.socketpair()
        here.setblocking(False)
        self._words = Channel(here, self._complain)
        return there

    def talk(self, *, ready: bool) -> BootPort:
        """Connect to console and boot port, which it waits for before it begins.

        `ready`: its guest has been ready before.

        Raises:
            OSError: the sockets are gone.
        """
        path = self._directory.path
        self._serial = Channel(connected(path, launch.CONSOLE), self.console.feed)
        self.port = BootPort(connected(path, launch.BOOT), self.console.feed, ready=ready)
        return self.port

    async def reach(self, seconds: float = TIMEOUT) -> Qmp:
        """Open the machine protocol.

        Raises:
            OSError, QmpError: it does not answer.
        """
        connection = connected(self._directory.path, launch.QMP)
        self._qmp = await Qmp.open(connection, self._heard, seconds=seconds)
        return self._qmp

    @property
    def qmp(self) -> Qmp:
        """The machine protocol. Raises Conflict when it does not run."""
        if self._qmp is None:
            raise Conflict(f"{self._machine} does not run")
        return self._qmp

    async def last_words(self) -> None:
        """Read what is still under way from an emulator that has ended."""
        if self.port is not None:
            await self.port.last_words()
        for channel in (self._serial, self._words):
            if channel is not None:
                await channel.drained()

    async def explained(self, error: BootFailed) -> BootFailed:
        """A failed boot in which process 1 said nothing, with what kernel and emulator said.

        The emulator was ended before.
        """
        if error.details.get("output"):
            return error
        await self.last_words()
        words = shown(self.console.data)
        return BootFailed(": ".join([error.message, *words.splitlines()[-1:]]), output=words)

    async def outcome(self, ended: Ended) -> Ended:
        """How the machine ended, whose emulator `ended` like this: only the guest knows more."""
        await self.last_words()
        said = self.port.said if self.port is not None else None
        if ended.signal is not None:
            return ended
        if said is not None and said.exit is not None:
            return with_signal(said.exit.code, said.signal)
        if self.console.panic is not None:
            return Ended(PANICKED, reason=f"the guest's kernel panicked: {self.console.panic}")
        if ended.code:
            words = " ".join(shown(self.console.data).splitlines()[-1:])
            return Ended(ended.code, reason=f"the emulator failed: {words}")
        return ended

    async def close(self) -> None:
        """Let go of all connections. Repeating is harmless."""
        for each in (self._serial, self._words, self.port, self._qmp):
            if each is not None:
                await each.close()
        self._serial = self._words = self.port = self._qmp = None

    def _complain(self, data: bytes) -> None:
        """Keep what an emulator prints itself, but for what is no trouble."""
        lines = data.splitlines(keepends=True)
        self.console.feed(b"".join(line for line in lines if b" info: " not in line))

    def _heard(self, event: str, data: dict[str, Any]) -> None:
        told = str(data.get("reason", ""))[:100]
        _log.debug("machine.emulator", workspace=self._machine, said=event[:100], reason=told)
