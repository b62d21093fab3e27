"""The calls inside one workspace (runtime API, through the gateway)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bastide.client._call import LONG_TIMEOUT, USUAL_TIMEOUT, Call, part
from bastide.client._models import ExecResult, FileEntry, FileStat, FileText
from bastide.client._values import check

Command = str | Sequence[str]


def run(
    command: Command, *, timeout: float | None, keep_logs: bool, ttl: int | None
) -> Call[ExecResult]:
    """Run and wait for the end."""
    return Call(
        "POST",
        "/exec",
        _result,
        json=_exec_body(command, timeout, keep_logs=keep_logs, ttl=ttl),
        repeatable=False,
        timeout=None if timeout is None else timeout + USUAL_TIMEOUT,
    )


def stream(
    command: Command, *, timeout: float | None, keep_logs: bool, ttl: int | None
) -> Call[None]:
    """Run and hear what it writes; the answer is a stream."""
    return Call(
        "POST",
        "/exec/stream",
        _nothing,
        json=_exec_body(command, timeout, keep_logs=keep_logs, ttl=ttl),
        repeatable=False,
        timeout=None,
    )


def subscribe(task: str) -> Call[None]:
    """Hear what a running or finished task writes; the answer is a stream."""
    return Call("GET", "/exec/stream", _nothing, params={"task_id": task}, timeout=None)


def tasks() -> Call[list[ExecResult]]:
    """Every task that is remembered."""
    return Call(
        "GET", "/exec", lambda body: [ExecResult.model_validate(task) for task in body["tasks"]]
    )


def task(identifier: str) -> Call[ExecResult]:
    """One task."""
    return Call("GET", f"/exec/{part(identifier)}", _result)


def kill(identifier: str) -> Call[None]:
    """End a task and forget it."""
    return Call("DELETE", f"/exec/{part(identifier)}", _nothing)


def write_input(identifier: str, data: bytes, *, eof: bool) -> Call[int]:
    """Give bytes to a task's standard input; how many it took. `eof` closes it after them."""
    return Call(
        "POST",
        f"/exec/{part(identifier)}/input",
        lambda body: int(body["bytes_written"]),
        params={"eof": True if eof else None},
        content=data,
        repeatable=False,
    )


def list_files(path: str, options: dict[str, Any]) -> Call[list[FileEntry]]:
    """The entries of a directory; `options` as in the runtime API (nested, max_depth, ...)."""
    return Call(
        "GET",
        "/files",
        lambda body: [FileEntry.model_validate(entry) for entry in body["entries"]],
        params={"path": path, **options},
    )


def read_file(path: str, start_line: int | None, end_line: int | None) -> Call[FileText]:
    """A file's text, or the lines from `start_line` to `end_line` (counted from 1)."""
    return Call(
        "GET",
        "/files/read",
        FileText.model_validate,
        params={"path": path, "start_line": start_line, "end_line": end_line},
    )


def write_file(
    path: str, content: str, *, create_dirs: bool, append: bool, mode: str | None
) -> Call[int]:
    """Write text; the size the server tells, in bytes. Appending is not sent twice."""
    body: dict[str, Any] = {
        "path": path,
        "content": content,
        "create_dirs": create_dirs,
        "append": append,
    }
    if mode is not None:
        body["mode"] = mode
    return Call(
        "POST",
        "/files/write",
        lambda answer: int(answer["size"]),
        json=body,
        repeatable=not append,
        timeout=LONG_TIMEOUT,
    )


def make_directory(path: str, mode: str | None) -> Call[None]:
    """Make a directory and its parents."""
    body = {"path": path} if mode is None else {"path": path, "mode": mode}
    return Call("POST", "/files/mkdir", _nothing, json=body)


def stat_file(path: str) -> Call[FileStat]:
    """What is known of one path; links are not followed."""
    return Call("GET", "/files/stat", FileStat.model_validate, params={"path": path})


def delete_file(path: str) -> Call[None]:
    """Delete a file, or a directory with all it holds. Not sent twice: the second would be 404."""
    return Call("POST", "/files/delete", _nothing, json={"path": path}, repeatable=False)


def health() -> Call[bool]:
    """Whether the runtime server is well."""
    return Call("GET", "/health", lambda body: body.get("status") == "ok")


def _exec_body(
    command: Command, timeout: float | None, *, keep_logs: bool, ttl: int | None
) -> dict[str, Any]:
    text = isinstance(command, str)
    body: dict[str, Any] = {
        "cmd": [command] if text else list(command),
        "exec_mode": "shell" if text else "direct",
    }
    if timeout is not None:
        check(timeout, "timeout")
        # Whole seconds on the wire; a part of one must not become "no limit".
        body["timeout_seconds"] = max(1, round(timeout))
    if keep_logs:
        body["keep_logs"] = True
    if ttl is not None:
        body["ttl_seconds"] = ttl
    return body


def _result(body: Any) -> ExecResult:
    return ExecResult.model_validate(body)


def _nothing(_: Any) -> None:
    return None
