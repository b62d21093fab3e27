"""The control plane's link to the agent inside a machine (architecture, control port).

What answers is inside a workspace and therefore hostile: answers are bounded in size and time,
redirects are not followed, and each boot's token opens only that boot's agent.
"""

# ruff: noqa: N818 - these read as states, which they are

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bastide.domain.machine import ControlAddress, SshAccess
from bastide.engine.contract import EngineError

MAX_ANSWER_BYTES = 64 * 1024
TIMEOUT = 5.0
PIECE = 1024 * 1024
"""Bytes handed on at once."""
_TRANSFER = httpx.Timeout(300.0, connect=TIMEOUT)
"""Seconds without a byte after which a transfer is given up; a large tree takes time to walk."""
_LONGEST_REASON = 500
_NO_SUCH_CALLS = ("'/control/archive'", "'/control/unpack'")
"""How an agent's refusal ends that does not know these calls yet."""


class AgentUnavailable(EngineError):
    """The agent of a machine does not answer as it must."""

    def __init__(self, message: str) -> None:
        super().__init__("VM_UNAVAILABLE", message)


class AgentRefused(EngineError):
    """The agent will not do it, with its reason.

    `status` is that of its answer, `field` what it finds wrong with the request.
    """

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__("refused", message)
        self.status = status
        self.field = field


class AgentHealth(BaseModel):
    """Answer of `GET /control/health`; `uptime` in seconds."""

    model_config = ConfigDict(extra="ignore")

    boot_id: str
    uptime: float


class AgentRuntime(BaseModel):
    """Answer of `PUT /control/runtime`."""

    model_config = ConfigDict(extra="ignore")

    enabled: bool
    running: bool


class AgentSsh(BaseModel):
    """Answer of `PUT /control/ssh`; `error` says why an enabled server does not run."""

    model_config = ConfigDict(extra="ignore")

    enabled: bool
    running: bool
    error: str | None = None


class AgentUnpacked(BaseModel):
    """Answer of `POST /control/unpack`."""

    model_config = ConfigDict(extra="ignore")

    files_extracted: int = Field(ge=0, le=2**53)


class AgentRefusalDetails(BaseModel):
    """More about a refusal."""

    model_config = ConfigDict(extra="ignore")

    field: str | None = None


class AgentRefusal(BaseModel):
    """What an agent answers that will not do something."""

    model_config = ConfigDict(extra="ignore")

    message: str
    details: AgentRefusalDetails = AgentRefusalDetails()


class Agent(ABC):
    """What the control plane asks of the agent of one machine.

    All calls raise `AgentUnavailable` when the agent does not answer as it must.
    """

    @abstractmethod
    async def health(self, control: ControlAddress) -> AgentHealth:
        """Whether the agent answers, and which boot it is."""

    @abstractmethod
    async def set_runtime(
        self, control: ControlAddress, *, enabled: bool, token: str | None
    ) -> AgentRuntime:
        """Open or close the runtime port; a new token ends what the old one opened."""

    @abstractmethod
    async def set_ssh(self, control: ControlAddress, access: SshAccess) -> AgentSsh:
        """Start the SSH server, tell it who may enter, or end it with its sessions."""

    @abstractmethod
    def archive(
        self, control: ControlAddress, paths: Sequence[str], excludes: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A plain tar of some paths, as it comes; it may have any size and any content.

        Raises:
            AgentRefused: a path is not there, or is no file of the workspace.
            AgentUnavailable: also amid the stream; what came is then incomplete.
        """

    @abstractmethod
    async def unpack(
        self, control: ControlAddress, dest: str, content: AsyncIterator[bytes]
    ) -> int:
        """Extract a plain tar below `dest`; how many files and links the agent says it was.

        Raises:
            AgentRefused: it cannot be extracted there; `status` 507 is a full disk.
            AgentUnavailable: it broke off; some of the files may be there.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections."""


class HttpAgent(Agent):
    """Agents over HTTP on the private addresses of their workspaces."""

    def __init__(self) -> None:
        self._http = httpx.AsyncClient(
            timeout=TIMEOUT,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=128, max_keepalive_connections=0),
        )

    async def health(self, control: ControlAddress) -> AgentHealth:
        """Ask `GET /control/health`."""
        content = await self._call(control, "GET", "health", None)
        try:
            return AgentHealth.model_validate_json(content)
        except ValidationError as error:
            raise _strange(control) from error

    async def set_runtime(
        self, control: ControlAddress, *, enabled: bool, token: str | None
    ) -> AgentRuntime:
        """Ask `PUT /control/runtime`."""
        content = await self._call(control, "PUT", "runtime", {"enabled": enabled, "token": token})
        try:
            return AgentRuntime.model_validate_json(content)
        except ValidationError as error:
            raise _strange(control) from error

    async def set_ssh(self, control: ControlAddress, access: SshAccess) -> AgentSsh:
        """Ask `PUT /control/ssh`."""
        content = await self._call(control, "PUT", "ssh", access.model_dump(mode="json"))
        try:
            return AgentSsh.model_validate_json(content)
        except ValidationError as error:
            raise _strange(control) from error

    @asynccontextmanager
    async def archive(
        self, control: ControlAddress, paths: Sequence[str], excludes: Sequence[str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Ask `POST /control/archive`."""
        body = {"paths": list(paths), "excludes": list(excludes)}
        with _transfer(control):
            async with self._http.stream(
                "POST",
                _url(control, "archive"),
                json=body,
                headers=_credentials(control),
                timeout=_TRANSFER,
            ) as answer:
                await _check(control, answer)
                yield answer.aiter_raw(PIECE)

    async def unpack(
        self, control: ControlAddress, dest: str, content: AsyncIterator[bytes]
    ) -> int:
        """Ask `POST /control/unpack`."""
        with _transfer(control):
            async with self._http.stream(
                "POST",
                _url(control, "unpack"),
                params={"dest": dest},
                content=content,
                headers=_credentials(control),
                timeout=_TRANSFER,
            ) as answer:
                await _check(control, answer)
                said = await _bounded(control, answer)
        try:
            return AgentUnpacked.model_validate_json(said).files_extracted
        except ValidationError as error:
            raise _strange(control) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(self, control: ControlAddress, method: str, what: str, body: Any) -> bytes:
        """The bounded answer to one call."""
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._http.stream(
                    method, _url(control, what), json=body, headers=_credentials(control)
                ) as answer,
            ):
                if answer.status_code != httpx.codes.OK:
                    raise _strange(control)
                return await _bounded(control, answer)
        except (httpx.HTTPError, TimeoutError) as error:
            raise AgentUnavailable(
                f"the agent at {control.address} does not answer; "
                "restart the workspace if this lasts"
            ) from error


def _url(control: ControlAddress, what: str) -> str:
    return f"http://{control.address}:{control.port}/control/{what}"


def _credentials(control: ControlAddress) -> dict[str, str]:
    return {"authorization": f"Bearer {control.token}"}


async def _bounded(control: ControlAddress, answer: httpx.Response) -> bytes:
    """The body of an answer that has a bound."""
    content = bytearray()
    async for part in answer.aiter_raw():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise _strange(control)
    return bytes(content)


@contextmanager
def _transfer(control: ControlAddress) -> Iterator[None]:
    """Turn a transfer that breaks off into the error of this module."""
    try:
        yield
    except httpx.HTTPError as error:
        raise AgentUnavailable(
            f"the transfer with the agent at {control.address} broke off "
            f"({type(error).__name__}); the workspace may have stopped"
        ) from error


async def _check(control: ControlAddress, answer: httpx.Response) -> None:
    """See that a transfer was accepted.

    Raises:
        AgentRefused, AgentUnavailable: it was not.
    """
    if answer.status_code == httpx.codes.OK:
        return
    try:
        refusal = AgentRefusal.model_validate_json(await _bounded(control, answer))
    except ValidationError as error:
        raise _strange(control) from error
    if answer.status_code == httpx.codes.NOT_FOUND and refusal.message.endswith(_NO_SUCH_CALLS):
        raise AgentUnavailable(
            "the agent is older than this server and knows no archives; restart the workspace"
        )
    said = "".join(char if char.isprintable() else " " for char in refusal.message)
    raise AgentRefused(answer.status_code, said[:_LONGEST_REASON], refusal.details.field)


def _strange(control: ControlAddress) -> AgentUnavailable:
    return AgentUnavailable(
        f"the agent at {control.address} gave a strange answer; restart the workspace"
    )
