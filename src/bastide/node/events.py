"""What happens to machines, told to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import structlog

from bastide.domain.machine import MachineEvent, MachineExit, MachineState

_MOST_WAITING = 1000
_log = structlog.get_logger(__name__)


class Events:
    """Sends each event to every listener. A listener that does not keep up is let go.

    It then sees its stream end, as it would at a restart of the node, and polls.
    """

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[MachineEvent | None]] = set()

    def emit(
        self, machine: str, kind: str, state: MachineState, ended: MachineExit | None = None
    ) -> None:
        """Tell everyone, and the log."""
        event = MachineEvent(id=machine, type=kind, at=datetime.now(UTC), state=state, exit=ended)
        _log.info("machine.event", workspace=machine, kind=kind, state=state.value)
        for queue in list(self._listeners):
            if queue.full():
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def listen(self, pulse: float) -> AsyncIterator[MachineEvent | None]:
        """Events from now on; None after every `pulse` seconds of silence."""
        queue: asyncio.Queue[MachineEvent | None] = asyncio.Queue(_MOST_WAITING)
        self._listeners.add(queue)
        try:
            while True:
                try:
                    async with asyncio.timeout(pulse):
                        event = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if event is None:
                    return
                yield event
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        """End every stream."""
        for queue in list(self._listeners):
            self._listeners.discard(queue)
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
