"""What follows when a machine that should be there has ended by itself."""

from __future__ import annotations

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.instant import now
from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import MachineExit, MachineStatus
from bastide.domain.operation import OperationKind
from bastide.domain.restart import End, Restarts, after_exit, after_loss, unseen
from bastide.pipelines.aftermath import again, most_of, policy_of
from bastide.services.queue import Queue
from bastide.store.tables import Operation, Workspace
from bastide.store.workspaces import Workspaces

log = structlog.get_logger(__name__)


async def react(
    session: AsyncSession, queue: Queue, row: Workspace, status: MachineStatus | None
) -> Operation | None:
    """Restart, remove, or let it rest; the operation that was queued.

    `status` is what the engine says of the machine; None: it knows none. Part of the caller's
    transaction.
    """
    ended = status.exit if status is not None else None
    lost = unseen(ended)
    log.info(
        "machine.lost" if lost else "machine.ended",
        workspace_id=row.id,
        code=ended.code if ended else None,
        signal=ended.signal if ended else None,
        oom=ended.oom if ended else None,
    )
    past = Restarts.model_validate(row.restarts)
    if row.remove_on_exit:
        await Workspaces(session).update(row.id, {"desired_state": DesiredState.DELETED})
        return await queue.insert(session, row.id, OperationKind.DELETE, {"cause": "exit"})
    if row.desired_state is DesiredState.PAUSED:
        # Its owner had frozen it, and the memory is gone: nothing can go on.
        rested = past.ended(End(at=now(), cause="lost"))
        return await again(session, queue, row, rested, "lost")
    if lost or ended is None:
        return await again(session, queue, row, after_loss(policy_of(row), now(), past), "lost")
    restarts = after_exit(
        policy_of(row), ended, past, most=most_of(row), ran=_ran(row, ended, status)
    )
    return await again(session, queue, row, restarts, "exit")


def _ran(row: Workspace, ended: MachineExit, status: MachineStatus | None) -> float:
    """Seconds the machine had run."""
    started = (status.started_at if status else None) or row.started_at or ended.at
    return (ended.at - started).total_seconds()
