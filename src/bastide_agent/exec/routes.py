"""The endpoints below `/exec` (spec runtime 6)."""

from __future__ import annotations

import asyncio
import os
from binascii import b2a_base64
from typing import TYPE_CHECKING

from bastide_agent.exec.task import Listener, Task
from bastide_agent.exec.tasks import FOREVER, Tasks
from bastide_agent.http.errors import ApiError, invalid
from bastide_agent.http.fields import Fields
from bastide_agent.http.message import Request, Response, ok, plain
from bastide_agent.http.streams import EventStream

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.runtime import Runtime

YEAR = 31_536_000
BATCH = 256 * 1024  # bytes of frames sent in one write
KEEP_ALIVE = 15.0  # seconds
INPUT_STALL = 10.0  # seconds a process may not read its input before we say so


def register(router: Router, runtime: Runtime) -> None:
    """Serve the tasks of a runtime."""
    endpoints = Exec(Tasks(runtime.places))
    runtime.on_close(endpoints.tasks.close)
    router.add("POST", "/exec", endpoints.run)
    router.add("POST", "/exec/stream", endpoints.run_stream)
    router.add("GET", "/exec/stream", endpoints.subscribe)
    router.add("GET", "/exec", endpoints.list)
    router.add("DELETE", "/exec", endpoints.delete_all)
    router.add("GET", "/exec/:id", endpoints.get)
    router.add("DELETE", "/exec/:id", endpoints.delete)
    router.add("POST", "/exec/:id/input", endpoints.input)


class Exec:
    """Handlers over the tasks."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks

    async def run(self, request: Request) -> Response | None:
        """Run a command and answer when it has ended, or stream when `stream` is set."""
        fields = await request.fields()
        if fields.flag("stream"):
            await self._stream(request, fields)
            return None
        task = self._start(fields, stdin=False)
        await task.finished.wait()
        answer = plain(task.document(output=True))
        if not task.keep_logs:
            task.backlog.clear()
        return answer

    async def run_stream(self, request: Request) -> None:
        """Run a command and stream its output."""
        await self._stream(request, await request.fields())

    async def _stream(self, request: Request, fields: Fields) -> None:
        task = self._start(fields, stdin=True)
        listener = task.listen(0)
        try:
            stream = await EventStream.open(request)
            await stream.send("task_id", {"task_id": task.id}, "0")
            await follow(task, listener, stream)
        finally:
            task.leave(listener)

    def _start(self, fields: Fields, *, stdin: bool) -> Task:
        value = fields.raw("cmd")
        fields = Fields({**fields.values(), "cmd": [value]}) if isinstance(value, str) else fields
        cmd = fields.strings("cmd", required=True)
        if not cmd[0].strip():
            raise invalid("cmd", "cmd must begin with the name of a program")
        return self.tasks.start(
            cmd,
            mode=fields.text("exec_mode", "auto", max_length=64),
            timeout=fields.integer("timeout_seconds", 0, 0, YEAR),
            ttl=fields.integer("ttl_seconds", 0, FOREVER, YEAR),
            keep_logs=fields.flag("keep_logs"),
            stdin=stdin,
        )

    async def subscribe(self, request: Request) -> None:
        """Follow a task: what is kept of its output, what comes, its end.

        `Last-Event-ID` or `since` continues behind that event; a `gap` event says that events in
        between are gone. A finished task without either answers one `output` event.
        """
        task = self.tasks.get(request.query.text("task_id", max_length=64))
        since = resume_point(request)
        if since is None and task.finished.is_set():
            stream = await EventStream.open(request)
            kept = {
                name: task.backlog.text(name) for name in ("stdout", "stderr") if task.keep_logs
            }
            await stream.write(stream.frame("output", kept) + exit_frame(task))
            return
        listener = task.listen(since or 0)
        try:
            await follow(task, listener, await EventStream.open(request))
        finally:
            task.leave(listener)

    async def list(self, request: Request) -> Response:
        """Every task, without output."""
        del request
        return ok({"tasks": [task.document(output=False) for task in self.tasks.all()]})

    async def get(self, request: Request) -> Response:
        """One task; with output while it runs, and after when it keeps logs."""
        task = self.tasks.get(request.params["id"])
        return plain(task.document(output=task.keep_logs or not task.finished.is_set()))

    async def delete(self, request: Request) -> Response:
        """Kill and forget one task."""
        self.tasks.delete(self.tasks.get(request.params["id"]))
        return ok()

    async def delete_all(self, request: Request) -> Response:
        """Kill and forget every task."""
        del request
        tasks = self.tasks.all()
        for task in tasks:
            self.tasks.delete(task)
        return ok({"deleted": len(tasks)})

    async def input(self, request: Request) -> Response:
        """Write the body to the standard input; `?eof=true` ends the input after it."""
        task = self.tasks.get(request.params["id"])
        end = request.query.flag("eof")
        written = 0
        async with task.input_lock:
            async for data in request.body:
                written += await feed(task, data, written)
            if task.stdin is None:
                raise no_stdin(task, written)
            if end:
                task.close_stdin()
        return ok({"bytes_written": written})


def no_stdin(task: Task, written: int) -> ApiError:
    """The 409 of a task that takes no input (any more)."""
    why = "has ended" if task.exit_code is not None else "does not read standard input"
    message = f"task {task.id} {why}; only streamed tasks that run take input"
    return ApiError(409, "conflict", message, {"bytes_written": written})


async def feed(task: Task, data: bytes, before: int) -> int:
    """Write all of `data` to the input of a task, waiting while its pipe is full.

    Raises:
        ApiError: 409 when it takes no input, or reads nothing for too long.
    """
    loop = asyncio.get_running_loop()
    written = 0
    while written < len(data):
        fd = task.stdin
        if fd is None:
            raise no_stdin(task, before + written)
        try:
            written += os.write(fd, data[written : written + 65536])
        except BlockingIOError:
            task.stdin_ready.clear()
            loop.add_writer(fd, task.stdin_ready.set)
            try:
                await asyncio.wait_for(task.stdin_ready.wait(), INPUT_STALL)
            except TimeoutError:
                message = f"task {task.id} has not read its input for {INPUT_STALL:.0f} seconds"
                details = {"bytes_written": before + written}
                raise ApiError(409, "input_stalled", message, details) from None
            finally:
                if task.stdin == fd:
                    loop.remove_writer(fd)
        except BrokenPipeError:
            task.close_stdin()
    return written


def resume_point(request: Request) -> int | None:
    """The number of the last event the client has seen, or None.

    Raises:
        ApiError: 400 when it is no number.
    """
    header = request.header("last-event-id")
    fields = request.query if "since" in request.query else Fields({"since": header or None})
    return fields.integer("since", 0, 0, 2**53) if "since" in fields else None


def exit_frame(task: Task) -> bytes:
    """The last event."""
    data: dict[str, object] = {
        "exit_code": task.exit_code,
        "pid": task.pid,
        "status": task.status,
    }
    if task.error is not None:
        data["error"] = task.error
    return EventStream.frame("exit", data, str(task.backlog.last + 1))


def gap_frame(first: int, last: int) -> bytes:
    """Tells that events are no longer kept."""
    text = f"{last - first + 1} earlier events are no longer kept"
    return EventStream.frame("gap", {"from": first, "to": last, "message": text}, str(last))


async def follow(task: Task, listener: Listener, stream: EventStream) -> None:
    """Send everything behind the listener's place, until the task has ended."""
    if listener.cursor > task.backlog.last + 1:  # an id of some other task: begin again
        listener.cursor = 0
        await stream.send("gap", {"message": "that event id is not of this task"})
    while True:
        frames = bytearray()
        cursor = listener.cursor
        if cursor < task.backlog.dropped:
            frames += gap_frame(cursor + 1, task.backlog.dropped)
            cursor = task.backlog.dropped
        for event in task.backlog.after(cursor):
            data = b2a_base64(event.data, newline=False).decode("ascii")
            frames += EventStream.frame(event.stream, {"data": data}, str(event.number))
            cursor = event.number
            if len(frames) > BATCH:
                break
        if frames:
            await stream.write(bytes(frames))
            task.advance(listener, cursor)
        elif task.finished.is_set():
            await stream.write(exit_frame(task))
            return
        else:
            # Asked for before anything else can run: output that comes meanwhile is not missed.
            done, _ = await asyncio.wait((task.changed(),), timeout=KEEP_ALIVE)
            if not done:
                await stream.keep_alive()
