"""All tasks of a workspace: how many may run, and how long they are remembered."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Sequence

from bastide_agent.exec.argv import plan
from bastide_agent.exec.backlog import TOTAL_LIMIT, Budget
from bastide_agent.exec.task import Task
from bastide_agent.http.errors import ApiError, not_found
from bastide_agent.process import Places, SpawnError

RUNNING_LIMIT = 50
FINISHED_LIMIT = 256  # records of finished tasks kept, whatever their time to live
DEFAULT_TTL = 300  # seconds
FOREVER = -1
RESUME_SECONDS = 60.0  # how long the output of a task without keep_logs can be resumed
STOP_GRACE = 2.0  # seconds between TERM and KILL when all tasks end


class Tasks:
    """Tasks by id; ids are small decimal numbers in order of creation."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._tasks: dict[str, Task] = {}
        self._running: set[Task] = set()
        self._budget = Budget()
        self._count = 0

    def start(self, cmd: Sequence[str], *, mode: str, timeout: int, ttl: int, keep_logs: bool,
              stdin: bool) -> Task:  # fmt: skip
        """Start a command.

        Raises:
            ApiError: 429 when 50 run already or the workspace has too many processes, 400
                `exec_failed` when it cannot be started, 503 without memory.
        """
        if len(self._running) >= RUNNING_LIMIT:
            message = f"{RUNNING_LIMIT} tasks run already, which is the most; end one first"
            raise ApiError(429, "too_many_tasks", message, {"limit": RUNNING_LIMIT})
        task = Task(
            str(self._count + 1), cmd, keep_logs=keep_logs, ttl=ttl or DEFAULT_TTL,
            budget=self._budget,
        )  # fmt: skip
        try:
            task.start(plan(cmd, mode), self._places, timeout=timeout, stdin=stdin)
        except SpawnError as error:
            raise start_error(error) from None
        except OSError as error:
            raise start_error(SpawnError(cmd[0], error.errno or 0)) from None
        self._count += 1
        self._tasks[task.id] = task
        self._running.add(task)
        task.on_finish = self._finished
        return task

    def _finished(self, task: Task) -> None:
        self._running.discard(task)
        if task.id not in self._tasks:  # deleted while it ran
            return
        loop = asyncio.get_running_loop()
        if task.ttl != FOREVER:
            task.timers.append(loop.call_later(task.ttl, self._forget, task))
        if not task.keep_logs:
            task.timers.append(loop.call_later(RESUME_SECONDS, task.backlog.clear))
        done = [old for old in self._tasks.values() if old.finished.is_set()]
        for old in done[: max(0, len(done) - FINISHED_LIMIT)]:
            self._forget(old)
        for old in done:
            if self._budget.used <= TOTAL_LIMIT:
                break
            old.backlog.clear()

    def _forget(self, task: Task) -> None:
        if self._tasks.get(task.id) is task:
            del self._tasks[task.id]
        if task.finished.is_set():
            task.backlog.clear()
        for timer in task.timers:
            timer.cancel()
        task.timers.clear()

    def get(self, task_id: str) -> Task:
        """A task that is remembered.

        Raises:
            ApiError: 404.
        """
        task = self._tasks.get(task_id)
        if task is None:
            raise not_found(f"there is no task {task_id[:64]!r}; it may have expired")
        return task

    def all(self) -> list[Task]:
        """Every task that is remembered, oldest first."""
        return list(self._tasks.values())

    def delete(self, task: Task) -> None:
        """Kill a task with all it started when it runs, and forget it."""
        task.kill()
        task.close_stdin()
        self._forget(task)

    async def close(self) -> None:
        """End all tasks: TERM, a little later KILL."""
        running = list(self._running)
        for task in running:
            task.kill(signal.SIGTERM)
        ends = [asyncio.ensure_future(task.finished.wait()) for task in running]
        if ends:
            await asyncio.wait(ends, timeout=STOP_GRACE)
        for task in running:
            task.kill()
        if ends:
            await asyncio.wait(ends, timeout=STOP_GRACE)
        for end in ends:
            end.cancel()
        for task in self.all():
            self._forget(task)


def start_error(error: SpawnError) -> ApiError:
    """How a process that did not start is told."""
    if error.errno == errno.EAGAIN:
        return ApiError(429, "too_many_processes", f"{error}; end some first")
    if error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return ApiError(503, "out_of_resources", str(error))
    return ApiError(400, "exec_failed", str(error), {"field": "cmd"})
