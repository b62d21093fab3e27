"""Observation: what the engine sees of machines goes into the observed columns.

The engine's events only say when to look; `poll()` is the truth. A machine that ended by itself
is started again as its restart policy says; one that was lost with its host is started because
its owner wants it running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog

from bastide.domain.instant import now
from bastide.domain.lifecycle import WANTED_UP
from bastide.domain.machine import ENDED, MachineState, MachineStatus
from bastide.engine.contract import EngineError
from bastide.pipelines.aftermath import is_exit
from bastide.pipelines.restarts import react
from bastide.pipelines.tools import Tools
from bastide.services.bell import heard
from bastide.services.machines import observed, unobserved
from bastide.services.views import WorkspaceView, view_of, views_of
from bastide.store.errors import Duplicate
from bastide.store.tables import Operation, Workspace
from bastide.store.workspaces import Filter, Workspaces

log = structlog.get_logger(__name__)

EVERY = 2.0
LISTEN_AGAIN = 1.0
GATHER = 0.05
"""Seconds an event waits for others: most are of our own operations, which see for themselves."""
_COMPARED = ("observed_state", "address", "boot_id", "observed_exit", "ready")
_ASKED_FOR = frozenset(
    {"created", "started", "paused", "resumed", "restored", "stopped", "deleted"}
)
"""What an operation brings about; the one at work in this process sees it for itself."""


class Observation:
    """Keeps observed columns true, and begins restarts."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._look = asyncio.Event()
        self._blind = False

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            while True:
                self._look.clear()
                try:
                    await self.look()
                except EngineError as error:
                    self._lost_sight(error)
                except Exception:
                    log.exception("observation.failed")
                if await heard(self._look, EVERY):
                    await asyncio.sleep(GATHER)

    async def look(self) -> int:
        """Compare all rows with what the engine polls; how many changed.

        Raises:
            EngineUnavailable: nothing could be seen; nothing was changed.
        """
        async with self._tools.database.read() as session:
            rows = await Workspaces(session).page(Filter())
            views = await views_of(session, rows)
        at = now()
        seen = {status.id: status for status in await self._tools.engine.poll()}
        if self._blind:
            self._blind = False
            log.info("engine.back", machines=len(seen))
        count = 0
        for view in views:
            if view.doing is None and not view.creation_failed:
                count += await self._compare(view, seen.get(view.row.id), at)
        await self._tools.links.follow(rows)
        return count

    async def _listen(self) -> None:
        """Look at once when the engine tells of something."""
        while True:
            with suppress(EngineError):
                async for event in self._tools.engine.events():
                    ours = event.type in _ASKED_FOR and self._tools.queue.works_on(event.id)
                    if not ours:
                        self._look.set()
            await asyncio.sleep(LISTEN_AGAIN)

    def _lost_sight(self, error: EngineError) -> None:
        if not self._blind:
            log.warning("engine.away", error=error.message)
        self._blind = True

    async def _compare(
        self, view: WorkspaceView, status: MachineStatus | None, at: datetime
    ) -> bool:
        """Write what changed of one workspace, unless the row changed since it was read."""
        values = unobserved(at) if status is None else observed(status, at)
        same = all(getattr(view.row, name) == values[name] for name in _COMPARED)
        ended = MachineState(values["observed_state"]) in ENDED
        act = ended and (view.row.desired_state in WANTED_UP or _unseen_exit(view))
        if same and not act:
            return False
        try:
            operation = await self._write(view.row, values, status if act else None, act=act)
        except Duplicate:
            return False
        await self._tools.gateway.refresh(view.row.id)
        self._tools.queue.announce(operation)
        return True

    async def _write(
        self,
        row: Workspace,
        values: Mapping[str, Any],
        status: MachineStatus | None,
        *,
        act: bool,
    ) -> Operation | None:
        """Write the columns, and queue a restart in the same transaction when one is due."""
        async with self._tools.database.write() as session:
            workspaces = Workspaces(session)
            fresh = await workspaces.get(row.id)
            if fresh is None or fresh.updated_at != row.updated_at:
                return None
            view = await view_of(session, fresh)
            if view.doing is not None:
                return None
            await workspaces.update(row.id, values)
            return await react(session, self._tools.queue, fresh, status) if act else None


def _unseen_exit(view: WorkspaceView) -> bool:
    """Whether the last operation failed without seeing that it had ended the machine."""
    newest, last_seen = view.newest, MachineState(view.row.observed_state)
    failed = newest is not None and newest.error is not None and is_exit(view.row, newest)
    return failed and last_seen not in ENDED
