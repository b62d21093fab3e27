"""The base of every pipeline: operations are taken, worked and finished (architecture, State).

A pass takes a free row and holds it by a lock that expires, acts with no transaction open while a
heartbeat extends the lock, and writes its result only if the lock is still its own. A crash at
any line leaves a row that the next pass takes again, so all work can be repeated.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.instant import now
from bastide.domain.lifecycle import WANTED_UP
from bastide.domain.machine import MachineState
from bastide.domain.operation import OperationKind, OperationState, Phase
from bastide.engine.contract import EngineError, EngineUnavailable, UnknownMachine
from bastide.pipelines.aftermath import follow
from bastide.pipelines.job import Done, Job, Later
from bastide.pipelines.owner import Owner
from bastide.pipelines.tools import Tools
from bastide.services.bell import heard
from bastide.services.machines import access_of, desired_of
from bastide.services.queue import Ended
from bastide.store.operations import Operations
from bastide.store.tables import Operation, Workspace
from bastide.store.workspaces import Workspaces

log = structlog.get_logger(__name__)

FIRST_RETRY, LONGEST_RETRY = 0.5, 10.0
LOOK_ANYWAY = 15.0
"""Seconds after which a pipeline looks for work though no bell has rung."""
LOGGED_AFTER = 0.005
"""Seconds until an outcome is logged: those who wait for it come first."""
MOST_CRASHES = 5
"""Attempts after which an operation that crashes its pipeline is given up."""
_PASSING = frozenset({OperationKind.PAUSE, OperationKind.RESUME})
"""Whose outcome is gone with the host's power anyway: the machine is, and is started anew."""
_CRASHED = ("server_error", "the operation failed inside the server")


class Pipeline(ABC):
    """Works the operations of `kinds`, up to `concurrency` at a time."""

    kinds: ClassVar[tuple[OperationKind, ...]]
    concurrency: ClassVar[int] = 16

    def __init__(self, tools: Tools, owner: Owner) -> None:
        self.tools = tools
        self._owner = owner
        self._tasks: asyncio.TaskGroup | None = None
        self._working = 0
        self._free = asyncio.Event()

    @abstractmethod
    async def work(self, job: Job) -> Done:
        """Do it; must be safe to repeat after a crash at any line.

        Raises:
            EngineUnavailable: tried again until `patience` is over.
            EngineError: the engine refused; `give_up` follows.
        """

    @abstractmethod
    async def give_up(self, job: Job, error: EngineError) -> Done:
        """Undo what was half done, and say how it ended."""

    def patient(self, job: Job) -> bool:
        """Whether to try again while the engine cannot be reached; at least one try is made."""
        waited = (now() - job.operation.created_at).total_seconds()
        return waited < self.tools.patience or job.operation.attempts <= 1

    async def booted_since(self, job: Job) -> bool:
        """Whether an earlier pass of this operation has booted the machine anew already."""
        before = job.operation.params.get("boot_id")
        if job.operation.attempts <= 1 or before is None:
            return False
        try:
            status = await self.tools.engine.status(job.row.id)
        except UnknownMachine:
            return False
        return status.state is MachineState.RUNNING and status.boot_id != before

    @property
    def lock(self) -> tuple[str, float] | None:
        """See `Worker`."""
        if self._tasks is None or self._working >= self.concurrency:
            return None
        return self._owner.name, self.tools.lock

    def hand(self, operation: Operation, row: Workspace) -> None:
        """See `Worker`. Once it is too late for that, another process takes it up."""
        if self._tasks is not None:
            self._begin(self._tasks, operation, row)

    def _begin(self, tasks: asyncio.TaskGroup, operation: Operation, row: Workspace | None) -> None:
        self._working += 1
        tasks.create_task(self.handle(operation, row)).add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        del task
        self._working -= 1
        self._free.set()

    async def run(self) -> None:
        """Work until cancelled."""
        workers = self.tools.queue.workers
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            workers.update(dict.fromkeys(self.kinds, self))
            try:
                with self.tools.queue.bell.listening(*self.kinds) as ring:
                    await self._look_for_work(tasks, ring)
            finally:
                self._tasks = None
                for kind in self.kinds:
                    if workers.get(kind) is self:
                        del workers[kind]

    async def _look_for_work(self, tasks: asyncio.TaskGroup, ring: asyncio.Event) -> None:
        """Take what is free, whenever the bell rings."""
        while True:
            while self._working >= self.concurrency:
                self._free.clear()
                await self._free.wait()
            ring.clear()
            taken = await self.take()
            if taken is None:
                await heard(ring, LOOK_ANYWAY)
            else:
                self._begin(tasks, *taken)

    async def take(self) -> tuple[Operation, Workspace | None] | None:
        """Lock the next free operation; None when there is none or the database is away."""
        try:
            async with self.tools.database.write(lasting=False) as session:
                operation = await Operations(session).lock_next(
                    self._owner.name, self.tools.lock, self.kinds
                )
                if operation is None:
                    return None
                return operation, await Workspaces(session).get(operation.workspace_id)
        except Exception:
            log.exception("pipeline.take_failed", kinds=self.kinds)
            return None

    async def handle(self, operation: Operation, row: Workspace | None) -> None:
        """Work one locked operation to its end, or leave it for another pass."""
        logger = log.bind(
            workspace_id=operation.workspace_id, operation=operation.id, kind=operation.kind.value
        )
        with self.tools.queue.at_work(operation.workspace_id):
            try:
                await self._handle(operation, row, logger)
            except Exception:
                logger.exception("operation.crashed", attempt=operation.attempts)
                with suppress(Exception):
                    await self._crashed(operation, row)

    async def _handle(
        self, operation: Operation, row: Workspace | None, logger: structlog.stdlib.BoundLogger
    ) -> None:
        if row is None or operation.lock_token is None:
            await self._drop(operation)
            return
        job = Job(operation, row, operation.lock_token)
        outcome = await self._held(job)
        if outcome is None or not await self._apply(job, outcome):
            logger.info("operation.stale")
            await self._undo(operation)
        else:
            tell = partial(
                logger.info,
                "operation.worked",
                outcome=outcome.message,
                attempt=operation.attempts,
            )
            asyncio.get_running_loop().call_later(LOGGED_AFTER, tell)

    async def _held(self, job: Job) -> Done | Later | None:
        """The outcome of the work, or None when the lock was lost meanwhile."""
        beating: list[asyncio.Task[None]] = []
        with self.tools.queue.bell.listening(job.operation.id) as superseded:
            held = asyncio.timeout(None)  # until the lock is lost

            def begin() -> None:
                beating.append(asyncio.create_task(self._beat(job, superseded, held)))

            # what is over in a moment needs no sign of life
            first = asyncio.get_running_loop().call_later(self.tools.settle, begin)
            try:
                async with held:
                    return await self._outcome(job)
            except TimeoutError:
                if held.expired():
                    return None
                raise
            finally:
                first.cancel()
                job.ended.set()
                job.shown.set()
                await asyncio.gather(*beating, return_exceptions=True)

    async def _outcome(self, job: Job) -> Done | Later:
        """Work, and turn refusals into an end."""
        try:
            try:
                return await self.work(job)
            except EngineUnavailable as error:
                if self.patient(job):
                    raise
                return await self.give_up(job, error)
            except EngineError as error:
                return await self.give_up(job, error)
            except Exception:
                if job.operation.attempts < MOST_CRASHES:
                    raise
                log.exception("operation.given_up", operation=job.operation.id)
                return await self.give_up(job, EngineError(*_CRASHED))
        except EngineUnavailable as error:
            return Later(error.message, _delay(job.operation))

    async def _beat(self, job: Job, superseded: asyncio.Event, held: asyncio.Timeout) -> None:
        """Extend the lock and write phases until the work ends; end the work when it is lost."""
        written = None
        while True:
            await self._pause(job, superseded)
            superseded.clear()
            job.shown.clear()
            if job.phase != written:
                await heard(job.ended, self.tools.settle)
            if job.ended.is_set():
                return
            shown, written = job.phase if job.phase != written else None, job.phase
            if not await self._extend(job, shown):
                if not job.ended.is_set():
                    held.reschedule(asyncio.get_running_loop().time())
                return

    async def _pause(self, job: Job, superseded: asyncio.Event) -> None:
        """Wait for the next beat, a phase, the end of the work, or its being superseded."""
        waits = [asyncio.create_task(event.wait()) for event in (job.shown, superseded)]
        try:
            await asyncio.wait(waits, timeout=self.tools.beat, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _extend(self, job: Job, shown: tuple[Phase, str] | None) -> bool:
        """Keep the lock, and write the phase if it is a new one; False when the lock is lost.

        A database that is away for a moment does not end the work: the lock may still hold.
        """
        try:
            async with self.tools.database.write(lasting=False) as session:
                operations = Operations(session)
                if shown is not None:
                    values = {"phase": shown[0], "message": shown[1]}
                    if not await operations.apply_guarded(job.operation.id, job.lock, values):
                        return False
                return await operations.extend(job.operation.id, job.lock, self.tools.lock)
        except Exception:
            log.exception("operation.beat_failed", operation=job.operation.id)
            return True

    async def _apply(self, job: Job, outcome: Done | Later) -> bool:
        """Write the outcome while the lock is held; False: stale."""
        if isinstance(outcome, Later):
            async with self.tools.database.write() as session:
                operations = Operations(session)
                values = {"message": f"{outcome.message}; trying again"}
                return await operations.apply_guarded(
                    job.operation.id, job.lock, values
                ) and await operations.release(job.operation.id, job.lock, outcome.delay)
        lasting = job.operation.kind not in _PASSING or job.row.ttl is not None
        async with self.tools.gateway.changing():
            async with self.tools.database.write(lasting=lasting) as session:
                if not await Operations(session).finish(
                    job.operation.id, job.lock, _final(outcome)
                ):
                    return False
                if outcome.then is not None:
                    await outcome.then(session)
                row, after = await self._write(session, job, outcome)
            await self._publish(job, row)
        self.tools.queue.announce(after)
        late = row is not None and await self._catch_up(job, row)
        self._told(job.operation, outcome, None if late or after is not None else row)
        return True

    def _told(self, operation: Operation, outcome: Done, row: Workspace | None) -> None:
        """Tell the end to those who wait, as it was written."""
        for name, value in _final(outcome).items():
            setattr(operation, name, value)
        self.tools.queue.end(Ended(operation, row))

    async def _write(
        self, session: AsyncSession, job: Job, outcome: Done
    ) -> tuple[Workspace | None, Operation | None]:
        """Write the end into the workspace; the row then, and the operation that must follow."""
        workspaces = Workspaces(session)
        if outcome.workspace is None:
            cause = job.operation.params.get("cause")
            archived = cause if cause in {"exit", "ttl"} else None
            await workspaces.mark_deleted(job.row.id, archived)
            return None, None
        row = await workspaces.put(job.row, outcome.workspace)
        if row is None:
            return None, None
        good = outcome.error is None
        queue, time = self.tools.queue, self.tools.time
        after = await follow(session, queue, time, job.operation, row, good=good)
        return (await workspaces.get(row.id) if after is not None else row), after

    async def _publish(self, job: Job, row: Workspace | None) -> None:
        """Tell the edge; what fails here the sweep puts right, and nobody is kept waiting."""
        try:
            await self.tools.gateway.publish(row or job.row, gone=row is None)
        except Exception:
            log.exception("gateway.publish_failed", workspace_id=job.row.id)

    async def _catch_up(self, job: Job, row: Workspace) -> bool:
        """Put in force what was changed while the machine was starting with older values.

        Whether there was anything.
        """
        if not row.ready or access_of(row) == access_of(job.row):
            return False
        try:
            await self.tools.reach.put_in_force(row.id)
        except EngineError as error:
            log.warning("operation.catch_up_failed", workspace_id=row.id, error=error.message)
        return True

    async def _undo(self, operation: Operation) -> None:
        """Another took over: leave no machine behind if the workspace is gone by now."""
        async with self.tools.database.read() as session:
            row = await Workspaces(session).get(operation.workspace_id)
        if row is None:
            with suppress(EngineError):
                await self.tools.engine.delete(operation.workspace_id)

    async def _drop(self, operation: Operation) -> None:
        """The workspace is gone: end its operation, and any machine that was left."""
        with suppress(UnknownMachine):
            await self.tools.engine.delete(operation.workspace_id)
        async with self.tools.database.write() as session:
            await Operations(session).finish(
                operation.id, operation.lock_token or "", _final(Done("The workspace is gone"))
            )

    async def _crashed(self, operation: Operation, row: Workspace | None) -> None:
        """Let go at once of what crashed; give up what crashes every pass.

        A workspace that was to be started or frozen is then wanted as it was last seen.
        """
        lock = operation.lock_token or ""
        code, message = _CRASHED
        async with self.tools.gateway.changing():
            async with self.tools.database.write() as session:
                operations, workspaces = Operations(session), Workspaces(session)
                if operation.attempts < MOST_CRASHES:
                    await operations.release(operation.id, lock, _delay(operation))
                    return
                outcome = Done(message, {}, {"code": code, "message": message})
                if not await operations.finish(operation.id, lock, _final(outcome)):
                    return
                fresh = await workspaces.get(operation.workspace_id)
                if fresh is not None and fresh.desired_state in WANTED_UP:
                    seen = desired_of(MachineState(fresh.observed_state))
                    await workspaces.update(fresh.id, {"desired_state": seen})
                    fresh = await workspaces.get(fresh.id)
            if row is not None:
                await self._publish(Job(operation, row, lock), fresh)
        self._told(operation, outcome, fresh)


def _delay(operation: Operation) -> float:
    """Seconds until an operation is tried again."""
    delay: float = FIRST_RETRY * 2 ** min(operation.attempts - 1, 8)
    return min(delay, LONGEST_RETRY)


def _final(outcome: Done) -> dict[str, Any]:
    """The last columns of an operation."""
    good = outcome.error is None
    return {
        "state": OperationState.DONE if good else OperationState.FAILED,
        "phase": Phase.READY if good else Phase.FAILED,
        "message": outcome.message,
        "error": None if outcome.error is None else dict(outcome.error),
        **({} if outcome.params is None else {"params": dict(outcome.params)}),
    }
