"""One task: a process, its output, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence

from bastide_agent.clock import timestamp
from bastide_agent.exec.backlog import Backlog, Budget
from bastide_agent.process import Places, kill_tree, on_exit, spawn
from bastide_agent.threads import in_thread

READ_SIZE = 64 * 1024
DRAIN_READS = 17  # a pipe holds at most 1 MiB when its process ends
HOLD_LAG = 64 * 1024  # bytes a listener may lag before the process has to wait for it
HOLD_SECONDS = 30.0  # and how long the process waits for a listener that takes nothing
TIMED_OUT = 124


class Listener:
    """A place in a task's output. `holds`: the process waits for it when it is slow."""

    __slots__ = ("cursor", "holds")

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.holds = True


class Task:
    """A command and what became of it.

    `status` is `running`, `exited` or `failed` (timed out, or killed by request); `exit_code` is
    that of a shell (128 + signal; 124 timed out).
    """

    def __init__(self, task_id: str, command: Sequence[str], *, keep_logs: bool, ttl: int,
                 budget: Budget) -> None:  # fmt: skip
        self.id = task_id
        self.command = list(command)
        self.keep_logs = keep_logs
        self.ttl = ttl
        self.status = "pending"
        self.pid = 0
        self.exit_code: int | None = None
        self.error: str | None = None
        self.created_at = time.time()
        self.started_at: float | None = None
        self.exited_at: float | None = None
        self.backlog = Backlog(budget)
        self.finished = asyncio.Event()
        self.on_finish: Callable[[Task], None] | None = None
        self.stdin: int | None = None
        self.stdin_ready = asyncio.Event()
        self.input_lock = asyncio.Lock()
        self.timers: list[asyncio.TimerHandle] = []
        self._listeners: set[Listener] = set()
        self._changed: asyncio.Future[None] | None = None
        self._outputs: dict[int, str] = {}
        self._held: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._code: int | None = None
        self._killing: asyncio.Task[None] | None = None

    # -- life

    def start(self, argv: Sequence[str], places: Places, *, timeout: int, stdin: bool) -> None:
        """Start the process; with `stdin` it reads a pipe, else nothing.

        Raises:
            SpawnError: it cannot be started.
        """
        loop = asyncio.get_running_loop()
        ours: list[int] = []
        theirs: list[int] = []
        try:
            if stdin:
                reader, writer = os.pipe2(os.O_CLOEXEC)
                theirs.append(reader)
                ours.append(writer)
            else:
                theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            for _ in range(2):
                reader, writer = os.pipe2(os.O_CLOEXEC)
                ours.append(reader)
                theirs.append(writer)
            self.pid = spawn(argv, places, (theirs[0], theirs[1], theirs[2]))
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self.status = "running"
        self.started_at = time.time()
        for fd in ours:
            os.set_blocking(fd, False)
        if stdin:
            self.stdin = ours[0]
        self._outputs = {ours[-2]: "stdout", ours[-1]: "stderr"}
        for fd in self._outputs:
            loop.add_reader(fd, self._read, fd)
        on_exit(self.pid, self._process_ended)
        if timeout:
            self._deadline = loop.call_later(timeout, self._time_out, timeout)

    def _time_out(self, seconds: int) -> None:
        if self._code is None:
            self.error = f"timed out after {seconds} seconds; the command was killed"
            self.kill()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and everything it started."""
        if self._code is None and self.status == "running":
            if number == signal.SIGKILL:
                self.error = self.error or "killed on request"
                self._killing = asyncio.ensure_future(in_thread(kill_tree, self.pid))
            else:
                with contextlib.suppress(OSError):
                    os.killpg(self.pid, number)

    def _process_ended(self, code: int) -> None:
        self._code = code
        self.exited_at = time.time()
        if self._deadline is not None:
            self._deadline.cancel()
        self.close_stdin()
        if self._held is None:
            self._finish()

    def _finish(self) -> None:
        """Take what the pipes still hold, then tell the end."""
        assert self._code is not None  # noqa: S101  (only called after the end)
        for fd in list(self._outputs):
            for _ in range(DRAIN_READS):
                if not self._read(fd):
                    break
        self.exit_code = 128 - self._code if self._code < 0 else self._code
        self.status = "exited" if self.error is None else "failed"
        if self.error is not None and self.error.startswith("timed out"):
            self.exit_code = TIMED_OUT
        self.finished.set()
        self._notify()
        if self.on_finish is not None:
            self.on_finish(self)

    # -- output

    def _read(self, fd: int) -> bool:
        """Take output that is there; False when there is none now or any more.

        Pipes that a background process still holds are read (and dropped) after the end too:
        closing them would kill it.
        """
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
            del self._outputs[fd]
            return False
        if not self.finished.is_set():
            self.backlog.add(self._outputs[fd], data)
            self._notify()
            self._hold_back()
        return True

    def _notify(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    def changed(self) -> asyncio.Future[None]:
        """Done when there is more output or the end; shared, so never cancel it."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    def listen(self, after: int) -> Listener:
        """Begin to follow the output behind event `after`."""
        listener = Listener(after)
        self._listeners.add(listener)
        return listener

    def advance(self, listener: Listener, number: int) -> None:
        """A listener has taken the output up to event `number`."""
        listener.cursor = number
        listener.holds = True
        self._release()

    def leave(self, listener: Listener) -> None:
        """A listener is gone; nobody waits for it any more."""
        self._listeners.discard(listener)
        self._release()

    def _lags(self, listener: Listener) -> bool:
        return listener.holds and self.backlog.lags(listener.cursor, HOLD_LAG)

    def _hold_back(self) -> None:
        """Let the process wait for slow listeners, as it would on a terminal, but not for ever."""
        if self._held is None and any(self._lags(listener) for listener in self._listeners):
            loop = asyncio.get_running_loop()
            for fd in self._outputs:
                loop.remove_reader(fd)
            self._held = loop.call_later(HOLD_SECONDS, self._give_up_holding)

    def _give_up_holding(self) -> None:
        for listener in self._listeners:
            if self._lags(listener):
                listener.holds = False
        self._release()

    def _release(self) -> None:
        if self._held is None or any(self._lags(listener) for listener in self._listeners):
            return
        self._held.cancel()
        self._held = None
        loop = asyncio.get_running_loop()
        for fd in self._outputs:
            loop.add_reader(fd, self._read, fd)
        if self._code is not None and not self.finished.is_set():
            self._finish()

    # -- input

    def close_stdin(self) -> None:
        """End the input of the process."""
        if self.stdin is not None:
            asyncio.get_running_loop().remove_writer(self.stdin)
            os.close(self.stdin)
            self.stdin = None
            self.stdin_ready.set()

    # -- telling

    def document(self, *, output: bool) -> dict[str, object]:
        """The task as the API shows it; with `output` also what is kept of stdout and stderr."""
        found: dict[str, object] = {
            "id": self.id,
            "command": self.command,
            "status": self.status,
            "guest_pid": self.pid,
            "created_at": timestamp(self.created_at),
            "ttl_seconds": self.ttl,
        }
        if self.started_at is not None:
            found["started_at"] = timestamp(self.started_at)
        if self.exit_code is not None:
            found["exit_code"] = self.exit_code
            found["exited_at"] = timestamp(self.exited_at or 0.0)
        if self.error is not None:
            found["error"] = self.error
        if output:
            found["stdout"] = self.backlog.text("stdout")
            found["stderr"] = self.backlog.text("stderr")
            if self.backlog.dropped:
                found["truncated"] = True
        return found
