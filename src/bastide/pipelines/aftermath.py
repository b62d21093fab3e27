"""What the end of an operation brings about, in the same transaction that ends it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.instant import now
from bastide.domain.lease import Lease
from bastide.domain.lifecycle import DesiredState
from bastide.domain.machine import ENDED, MachineState
from bastide.domain.operation import ANEW, OperationKind
from bastide.domain.restart import RestartPolicy, Restarts, after_failed_start
from bastide.services.queue import WANTED, Queue
from bastide.store.clock import Time
from bastide.store.tables import Operation, Workspace
from bastide.store.workspaces import Workspaces

_BEGINS = ANEW | {OperationKind.PROVISION, OperationKind.RESUME}
_MAY_END = frozenset(
    {
        OperationKind.STOP,
        OperationKind.RESTART,
        OperationKind.REINSTALL,
        OperationKind.PAUSE,
        OperationKind.RESUME,
        OperationKind.RESIZE,
    }
)
"""What can fail and leave a machine ended that ran before.

Not a restore: what was to come back is still there, and so is the disk, to be tried again.
"""
OURS = frozenset({"exit", "lost", "failed_start"})
"""Causes of the restarts that Bastide itself begins."""


async def follow(
    session: AsyncSession, queue: Queue, time: Time, ended: Operation, row: Workspace, *, good: bool
) -> Operation | None:
    """Begin or end the lease of `row` as `ended` asks; the operation that must come next.

    A lease begins anew whenever a person lets the machine run. A stop of a workspace that is to
    be removed on exit brings its deletion, and so does all that failed and left its machine
    ended; a pause that a lease wanted and that failed brings a stop, and a restart of ours that
    failed another one, as the restart policy says.
    """
    kind, cause = ended.kind, ended.params.get("cause")
    if good and kind in _BEGINS:
        if cause is None:
            await _begin_lease(session, time, row)
        if row.archived_at is not None:
            await Workspaces(session).put(row, {"archived_at": None, "archived_reason": None})
        return None
    if good and kind is OperationKind.STOP and row.remove_on_exit:
        return await _then(session, queue, row, OperationKind.DELETE, "exit")
    if not good and is_exit(row, ended) and MachineState(row.observed_state) in ENDED:
        return await _then(session, queue, row, OperationKind.DELETE, "exit")
    if not good and kind is OperationKind.PAUSE and cause == "ttl":
        return await _then(session, queue, row, OperationKind.STOP, "ttl")
    if not good and kind is OperationKind.START and cause in OURS:
        return await _start_again(session, queue, row)
    return None


def is_exit(row: Workspace, failed: Operation) -> bool:
    """Whether `row` is to be removed if its machine is down after this failed operation.

    Not if it was down before: one that is stopped and does not come up has not ended then.
    """
    ran = failed.params.get("boot_id") is not None
    return row.remove_on_exit and failed.kind in _MAY_END and ran


async def _begin_lease(session: AsyncSession, time: Time, row: Workspace) -> None:
    """A full lease from now on."""
    if row.ttl is None:
        return
    ends = Lease(row.ttl).ends(await time(session))
    await Workspaces(session).put(
        row, {"lease_expires_at": ends, "lease_version": row.lease_version + 1}
    )


async def _then(
    session: AsyncSession, queue: Queue, row: Workspace, kind: OperationKind, cause: str
) -> Operation:
    await Workspaces(session).update(row.id, {"desired_state": WANTED[kind]})
    return await queue.insert(session, row.id, kind, {"cause": cause, "boot_id": row.boot_id})


async def _start_again(session: AsyncSession, queue: Queue, row: Workspace) -> Operation | None:
    """Another restart in the place of one that did not come up."""
    restarts = after_failed_start(
        policy_of(row), now(), Restarts.model_validate(row.restarts), most=most_of(row)
    )
    return await again(session, queue, row, restarts, "failed_start")


async def again(
    session: AsyncSession, queue: Queue, row: Workspace, restarts: Restarts, cause: str
) -> Operation | None:
    """Keep the restarts; queue the one that their newest end calls for, or let it rest."""
    last = restarts.history[0]
    wanted = DesiredState.RUNNING if last.restarted else DesiredState.STOPPED
    values: dict[str, Any] = {
        "restarts": restarts.model_dump(mode="json"),
        "desired_state": wanted,
    }
    await Workspaces(session).update(row.id, values)
    if not last.restarted:
        return None
    due = now() + timedelta(seconds=last.delay or 0.0)
    return await queue.insert(session, row.id, OperationKind.START, {"cause": cause}, due)


def policy_of(row: Workspace) -> RestartPolicy:
    """The restart policy in force: always `no` for a temporary workspace (seed 003)."""
    if row.ttl is not None:
        return RestartPolicy.NO
    return RestartPolicy(row.config.get("restart_policy", RestartPolicy.ALWAYS))


def most_of(row: Workspace) -> int:
    """`max_restarts`; 0 is unlimited."""
    return int(row.config.get("max_restarts", 0))
