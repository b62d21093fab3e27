"""The local engine: a client of bastide-node's unix socket (architecture, The node's socket).

With aiohttp and not httpx: a call takes a fifth of the processor time, and each request for a
machine waits for one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ConfigDict, ValidationError

from bastide.domain.image import INTERRUPTED
from bastide.domain.machine import (
    Capabilities,
    ImageInfo,
    ImageRequest,
    MachineEvent,
    MachineSpec,
    MachineStats,
    MachineStatus,
    RegistryAuth,
    Resources,
    Snapshot,
    SnapshotAfter,
)
from bastide.domain.network import BlockedLog, NetworkPolicy
from bastide.engine.contract import (
    Engine,
    EngineError,
    EngineUnavailable,
    UnknownMachine,
    Unsupported,
)

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 60.0
PULL_SILENCE = 300.0
"""Seconds without a line of progress after which a pull counts as dead."""
START_TIMEOUT = 600.0
"""Seconds for a boot; the node queues boots, so a crowd of them waits here."""
EVENT_SILENCE = 45.0
"""Seconds without even a blank line after which the stream of events counts as dead."""

_MOST_CONNECTIONS = 512
_LONGEST_LINE = 2**20
"""Bytes of a line of a stream."""
_BROKEN = (aiohttp.ClientError, HttpProcessingError, TimeoutError)

_D = TypeVar("_D", bound=BaseModel)


class _Images(BaseModel):
    images: list[ImageInfo]


class _Progress(BaseModel):
    message: str = ""
    error: str | None = None
    image: ImageInfo | None = None


class _Machines(BaseModel):
    machines: list[MachineStatus]


class _Problem(BaseModel):
    model_config = ConfigDict(extra="ignore")

    error: str = "engine_error"
    message: str = ""


class LocalEngine(Engine):
    """Machines of this server, run by bastide-node.

    Calls that may be repeated without harm at the HTTP level (GET, PUT, DELETE) are sent a
    second time when the connection breaks; the rest is repeated by the pipelines.
    """

    def __init__(self, socket: Path) -> None:
        """Talk to the node on `socket`; connects on first use."""
        self._socket = socket
        self._opened: aiohttp.ClientSession | None = None

    @property
    def _http(self) -> aiohttp.ClientSession:
        """The connections; they belong to the loop that runs when they are first asked for."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                "http://node",
                connector=aiohttp.UnixConnector(str(self._socket), limit=_MOST_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_LONGEST_LINE // 2,  # aiohttp takes twice as much
            )
        return self._opened

    async def capabilities(self) -> Capabilities:
        """What this node can do."""
        return await self._read(Capabilities, "GET", "/v1/capabilities")

    async def images(self) -> list[ImageInfo]:
        """The images of this node."""
        return (await self._read(_Images, "GET", "/v1/images")).images

    async def pull(
        self, reference: str, auth: RegistryAuth | None, tell: Callable[[str], None]
    ) -> ImageInfo:
        """Have an image."""
        body = ImageRequest(reference=reference, auth=auth).model_dump(mode="json")
        try:
            async with self._http.post(
                "/v1/images/pull", json=body, timeout=_patience(PULL_SILENCE)
            ) as answer:
                if not answer.ok:
                    raise _refusal(answer.status, await answer.read())
                async for line in answer.content:
                    said = _parse(_Progress, line)
                    if said.image is not None:
                        return said.image
                    if said.error == INTERRUPTED:
                        raise EngineUnavailable(said.message)
                    if said.error is not None:
                        raise EngineError(said.error, said.message)
                    tell(said.message)
        except _BROKEN as error:
            raise self._gone(error) from error
        raise EngineUnavailable("bastide-node broke off while it fetched an image")

    async def create(self, spec: MachineSpec) -> MachineStatus:
        """Reserve address and disk."""
        return await self._read(MachineStatus, "POST", "/v1/machines", body=_json(spec))

    async def start(self, spec: MachineSpec) -> MachineStatus:
        """Boot and wait for the agent."""
        return await self._read(
            MachineStatus,
            "POST",
            f"/v1/machines/{spec.id}/start",
            body=_json(spec),
            timeout=START_TIMEOUT,
        )

    async def stop(self, machine: str, grace: float) -> MachineStatus:
        """End it within `grace` seconds."""
        return await self._read(
            MachineStatus,
            "POST",
            f"/v1/machines/{machine}/stop",
            body={"grace": grace},
            timeout=grace + ANSWER_TIMEOUT,
        )

    async def kill(self, machine: str) -> MachineStatus:
        """End it at once."""
        return await self._read(MachineStatus, "POST", f"/v1/machines/{machine}/kill")

    async def pause(self, machine: str) -> MachineStatus:
        """Freeze it."""
        return await self._read(MachineStatus, "POST", f"/v1/machines/{machine}/pause")

    async def resume(self, machine: str) -> MachineStatus:
        """Let it go on."""
        return await self._read(MachineStatus, "POST", f"/v1/machines/{machine}/resume")

    async def resize(self, machine: str, resources: Resources) -> MachineStatus:
        """Other limits, hot."""
        return await self._read(
            MachineStatus, "PUT", f"/v1/machines/{machine}/resources", body=_json(resources)
        )

    async def snapshot(self, machine: str, after: SnapshotAfter | None) -> MachineStatus:
        """Capture memory and disk."""
        return await self._read(
            MachineStatus,
            "POST",
            f"/v1/machines/{machine}/snapshot",
            body={"after": after.value if after else None},
            timeout=START_TIMEOUT,
        )

    async def restore(self, spec: MachineSpec) -> MachineStatus:
        """Go back to the last snapshot."""
        return await self._read(
            MachineStatus,
            "POST",
            f"/v1/machines/{spec.id}/restore",
            body=_json(spec),
            timeout=START_TIMEOUT,
        )

    async def last_snapshot(self, machine: str) -> Snapshot | None:
        """The last snapshot."""
        try:
            return await self._read(Snapshot, "GET", f"/v1/machines/{machine}/snapshot")
        except UnknownMachine:
            return None

    async def delete(self, machine: str, *, keep_snapshot: bool = False) -> None:
        """Remove everything of it; unknown is fine."""
        keep = "?keep_snapshot=true" if keep_snapshot else ""
        try:
            await self._call("DELETE", f"/v1/machines/{machine}{keep}")
        except UnknownMachine:
            return

    async def apply_network(self, machine: str, policy: NetworkPolicy) -> MachineStatus:
        """Put `policy` in force."""
        return await self._read(
            MachineStatus, "PUT", f"/v1/machines/{machine}/network", body=_json(policy)
        )

    async def status(self, machine: str) -> MachineStatus:
        """One machine now."""
        return await self._read(MachineStatus, "GET", f"/v1/machines/{machine}")

    async def poll(self) -> list[MachineStatus]:
        """All machines now."""
        return (await self._read(_Machines, "GET", "/v1/machines")).machines

    async def blocked(self, machine: str) -> BlockedLog:
        """What its firewall refused it lately."""
        return await self._read(BlockedLog, "GET", f"/v1/machines/{machine}/blocked")

    async def stats(self, machine: str) -> MachineStats:
        """Use of it now."""
        return await self._read(MachineStats, "GET", f"/v1/machines/{machine}/stats")

    async def console(self, machine: str, limit: int) -> str:
        """The last `limit` bytes of its boot output."""
        path = f"/v1/machines/{machine}/console"
        return (await self._call("GET", path, params={"limit": limit})).decode("utf-8", "replace")

    async def events(self) -> AsyncIterator[MachineEvent]:
        """Events as they happen, until the node goes away."""
        try:
            async with self._http.get("/v1/events", timeout=_patience(EVENT_SILENCE)) as answer:
                if not answer.ok:
                    raise _refusal(answer.status, await answer.read())
                async for line in answer.content:
                    if line.strip():
                        yield _parse(MachineEvent, line)
        except aiohttp.ClientConnectorError as error:
            raise self._gone(error) from error
        except _BROKEN:
            return

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()

    async def _read(self, kind: type[_D], method: str, path: str, **more: Any) -> _D:
        return _parse(kind, await self._call(method, path, **more))

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: dict[str, int] | None = None,
        timeout: float = ANSWER_TIMEOUT,  # noqa: ASYNC109 - of silence, not of the whole call
    ) -> bytes:
        """One call; a broken connection is tried twice where that can do no harm."""
        for last in (False, True) if method != "POST" else (True,):
            try:
                async with self._http.request(
                    method, path, json=body, params=params, timeout=_patience(timeout)
                ) as answer:
                    content = await answer.read()
            except _BROKEN as error:
                if last or isinstance(error, TimeoutError):
                    raise self._gone(error) from error
            else:
                if not answer.ok:
                    raise _refusal(answer.status, content)
                return content
        raise AssertionError("unreachable")  # pragma: no cover

    def _gone(self, error: Exception) -> EngineUnavailable:
        slow = isinstance(error, TimeoutError)
        what = "did not answer in time" if slow else "cannot be reached"
        return EngineUnavailable(
            f"bastide-node {what} on {self._socket}; check that it runs with `bastide status`"
        )


def _json(document: BaseModel) -> Any:
    return document.model_dump(mode="json")


def _parse(kind: type[_D], content: str | bytes) -> _D:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise EngineError(
            "engine_error",
            f"bastide-node gave an answer that this version does not understand ({first['msg']}); "
            "node and api must be of the same version",
        ) from None


def _patience(silence: float) -> aiohttp.ClientTimeout:
    """How long to wait for the node: `silence` seconds between two signs of life."""
    return aiohttp.ClientTimeout(
        total=None, connect=ANSWER_TIMEOUT, sock_connect=CONNECT_TIMEOUT, sock_read=silence
    )


def _refusal(status: int, content: bytes) -> EngineError:
    """The typed error of a refusal."""
    try:
        problem = _Problem.model_validate_json(content)
    except ValidationError:
        problem = _Problem()
    message = problem.message or f"bastide-node answered {status}"
    if status == HTTPStatus.NOT_FOUND:
        return UnknownMachine(message)
    if status == HTTPStatus.NOT_IMPLEMENTED:
        return Unsupported(message)
    return EngineError(problem.error, message)
