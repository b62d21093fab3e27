"""Inside one workspace: commands and files, for asyncio."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import httpx
from httpx_sse import EventSource

from bastide.client import _runtime_calls as calls
from bastide.client._call import Call, connection_failed
from bastide.client._errors import AuthenticationError
from bastide.client._events import ExecEvent, Exited, exec_events
from bastide.client._models import ExecResult, FileEntry, FileStat, FileText
from bastide.client._runtime_calls import Command
from bastide.client._session import AsyncSession

T = TypeVar("T")


class AsyncTokenSource(Protocol):
    """Gives the gateway token of a workspace; `fresh` asks for a new one."""

    async def __call__(self, *, fresh: bool) -> str: ...


class _AsyncSender:
    """Sends with the gateway token; a refused one is replaced once."""

    def __init__(self, session: AsyncSession, token: AsyncTokenSource) -> None:
        self._session = session
        self._token = token

    async def send(self, call: Call[T]) -> T:
        try:
            return await self._session.send(call, await self._token(fresh=False))
        except AuthenticationError:
            return await self._session.send(call, await self._token(fresh=True))

    @contextlib.asynccontextmanager
    async def stream(self, call: Call[None]) -> AsyncIterator[httpx.Response]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(
                    self._session.stream(call, await self._token(fresh=False))
                )
            except AuthenticationError:
                response = await stack.enter_async_context(
                    self._session.stream(call, await self._token(fresh=True))
                )
            yield response


class AsyncExec:
    """Commands. A text is run by `/bin/sh -c`; a list is run as it is, without a shell."""

    def __init__(self, sender: _AsyncSender) -> None:
        self._sender = sender

    async def run(
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
        return await self._sender.send(
            calls.run(command, timeout=timeout, keep_logs=keep_logs, ttl=ttl)
        )

    @contextlib.asynccontextmanager
    async def stream(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        keep_logs: bool = False,
        ttl: int | None = None,
    ) -> AsyncIterator[AsyncIterator[ExecEvent]]:
        """Run a command and hear what it writes: `async with exec.stream(...) as events: ...`.

        Leaving the block early does not end the command.
        """
        call = calls.stream(command, timeout=timeout, keep_logs=keep_logs, ttl=ttl)
        async with self._sender.stream(call) as response:
            yield _events(response)

    @contextlib.asynccontextmanager
    async def subscribe(self, task: str) -> AsyncIterator[AsyncIterator[ExecEvent]]:
        """Hear what a task writes, also after its end if its logs are kept."""
        async with self._sender.stream(calls.subscribe(task)) as response:
            yield _events(response)

    async def list(self) -> list[ExecResult]:
        """Every task the workspace remembers."""
        return await self._sender.send(calls.tasks())

    async def get(self, task: str) -> ExecResult:
        """One task."""
        return await self._sender.send(calls.task(task))

    async def kill(self, task: str) -> None:
        """End a task and forget it."""
        await self._sender.send(calls.kill(task))

    async def write(self, task: str, data: bytes, *, eof: bool = False) -> int:
        """Give bytes to a task's standard input; how many it took. `eof` closes it after them."""
        return await self._sender.send(calls.write_input(task, data, eof=eof))


class AsyncFiles:
    """Files, by absolute path."""

    def __init__(self, sender: _AsyncSender) -> None:
        self._sender = sender

    async def list(self, path: str = "/", **options: Any) -> list[FileEntry]:
        """The entries of a directory; options as in the runtime API (`nested=True`, ...)."""
        return await self._sender.send(calls.list_files(path, options))

    async def read(
        self, path: str, *, start_line: int | None = None, end_line: int | None = None
    ) -> FileText:
        """A file's text, or some of its lines (counted from 1, the last included)."""
        return await self._sender.send(calls.read_file(path, start_line, end_line))

    async def write(
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
        return await self._sender.send(call)

    async def stat(self, path: str) -> FileStat:
        """What is known of one path; links are not followed."""
        return await self._sender.send(calls.stat_file(path))

    async def mkdir(self, path: str, *, mode: str | None = None) -> None:
        """Make a directory and its parents."""
        await self._sender.send(calls.make_directory(path, mode))

    async def delete(self, path: str) -> None:
        """Delete a file, or a directory with all it holds."""
        await self._sender.send(calls.delete_file(path))


class AsyncRuntime:
    """The runtime API of one workspace, through the gateway, for asyncio."""

    def __init__(self, session: AsyncSession, token: AsyncTokenSource) -> None:
        self._sender = _AsyncSender(session, token)
        self.exec = AsyncExec(self._sender)
        self.files = AsyncFiles(self._sender)

    async def healthy(self) -> bool:
        """Whether the runtime server is well."""
        return await self._sender.send(calls.health())


async def _events(response: httpx.Response) -> AsyncIterator[ExecEvent]:
    try:
        async for frame in EventSource(response).aiter_sse():
            for event in exec_events(frame):
                yield event
                if isinstance(event, Exited):
                    return
    except httpx.TransportError as error:
        raise connection_failed(error) from error
