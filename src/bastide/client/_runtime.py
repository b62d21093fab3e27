"""Inside one workspace: commands and files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import httpx
from httpx_sse import EventSource

from bastide.client import _runtime_calls as calls
from bastide.client._call import Call, connection_failed
from bastide.client._errors import AuthenticationError
from bastide.client._events import ExecEvent, Exited, exec_events
from bastide.client._models import ExecResult, FileEntry, FileStat, FileText
from bastide.client._runtime_calls import Command
from bastide.client._session import Session

T = TypeVar("T")


class TokenSource(Protocol):
    """Gives the gateway token of a workspace; `fresh` asks for a new one."""

    def __call__(self, *, fresh: bool) -> str: ...


class _Sender:
    """Sends with the gateway token; a refused one is replaced once."""

    def __init__(self, session: Session, token: TokenSource) -> None:
        self._session = session
        self._token = token

    def send(self, call: Call[T]) -> T:
        try:
            return self._session.send(call, self._token(fresh=False))
        except AuthenticationError:
            return self._session.send(call, self._token(fresh=True))

    @contextlib.contextmanager
    def stream(self, call: Call[None]) -> Iterator[httpx.Response]:
        with contextlib.ExitStack() as stack:
            try:
                response = stack.enter_context(self._session.stream(call, self._token(fresh=False)))
            except AuthenticationError:
                response = stack.enter_context(self._session.stream(call, self._token(fresh=True)))
            yield response


class Exec:
    """Commands. A text is run by `/bin/sh -c`; a list is run as it is, without a shell."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender

    def run(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        keep_logs: bool = False,
        ttl: int | None = None,
    ) -> ExecResult:
        """Run a command and wait for its end; `timeout` (seconds) ends it.

        `ttl` is how many seconds the server remembers it afterwards (-1 for ever).
        """
        return self._sender.send(calls.run(command, timeout=timeout, keep_logs=keep_logs, ttl=ttl))

    @contextlib.contextmanager
    def stream(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        keep_logs: bool = False,
        ttl: int | None = None,
    ) -> Iterator[Iterator[ExecEvent]]:
        """Run a command and hear what it writes: `with exec.stream(...) as events: ...`.

        Leaving the block early does not end the command.
        """
        call = calls.stream(command, timeout=timeout, keep_logs=keep_logs, ttl=ttl)
        with self._sender.stream(call) as response:
            yield _events(response)

    @contextlib.contextmanager
    def subscribe(self, task: str) -> Iterator[Iterator[ExecEvent]]:
        """Hear what a task writes, also after its end if its logs are kept."""
        with self._sender.stream(calls.subscribe(task)) as response:
            yield _events(response)

    def list(self) -> list[ExecResult]:
        """Every task the workspace remembers."""
        return self._sender.send(calls.tasks())

    def get(self, task: str) -> ExecResult:
        """One task."""
        return self._sender.send(calls.task(task))

    def kill(self, task: str) -> None:
        """End a task and forget it."""
        self._sender.send(calls.kill(task))

    def write(self, task: str, data: bytes, *, eof: bool = False) -> int:
        """Give bytes to a task's standard input; how many it took. `eof` closes it after them."""
        return self._sender.send(calls.write_input(task, data, eof=eof))


class Files:
    """Files, by absolute path."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender

    def list(self, path: str = "/", **options: Any) -> list[FileEntry]:
        """The entries of a directory; options as in the runtime API (`nested=True`, ...)."""
        return self._sender.send(calls.list_files(path, options))

    def read(
        self, path: str, *, start_line: int | None = None, end_line: int | None = None
    ) -> FileText:
        """A file's text, or some of its lines (counted from 1, the last included)."""
        return self._sender.send(calls.read_file(path, start_line, end_line))

    def write(
        self,
        path: str,
        content: str,
        *,
        create_dirs: bool = True,
        append: bool = False,
        mode: str | None = None,
    ) -> int:
        """Write text; the size the server tells, in bytes. `mode` is octal, as "0644"."""
        call = calls.write_file(path, content, create_dirs=create_dirs, append=append, mode=mode)
        return self._sender.send(call)

    def stat(self, path: str) -> FileStat:
        """What is known of one path; links are not followed."""
        return self._sender.send(calls.stat_file(path))

    def mkdir(self, path: str, *, mode: str | None = None) -> None:
        """Make a directory and its parents."""
        self._sender.send(calls.make_directory(path, mode))

    def delete(self, path: str) -> None:
        """Delete a file, or a directory with all it holds."""
        self._sender.send(calls.delete_file(path))


class Runtime:
    """The runtime API of one workspace, through the gateway."""

    def __init__(self, session: Session, token: TokenSource) -> None:
        self._sender = _Sender(session, token)
        self.exec = Exec(self._sender)
        self.files = Files(self._sender)

    def healthy(self) -> bool:
        """Whether the runtime server is well."""
        return self._sender.send(calls.health())


def _events(response: httpx.Response) -> Iterator[ExecEvent]:
    try:
        for frame in EventSource(response).iter_sse():
            for event in exec_events(frame):
                yield event
                if isinstance(event, Exited):
                    return
    except httpx.TransportError as error:
        raise connection_failed(error) from error
