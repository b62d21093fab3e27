"""The control plane's link to the agent inside a machine (architecture, control port).

What answers is inside a workspace and therefore hostile: answers are bounded in size and time,
redirects are not followed, and each boot's token opens only that boot's agent.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from bastide.domain.machine import ControlAddress, SshAccess
from bastide.engine.contract import EngineError

MAX_ANSWER_BYTES = 64 * 1024
TIMEOUT = 5.0


class AgentUnavailable(EngineError):  # noqa: N818 - reads as a state, like EngineUnavailable
    """The agent of a machine does not answer as it must."""

    def __init__(self, message: str) -> None:
        super().__init__("VM_UNAVAILABLE", message)


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

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(self, control: ControlAddress, method: str, what: str, body: Any) -> bytes:
        """The bounded answer to one call."""
        url = f"http://{control.address}:{control.port}/control/{what}"
        content = bytearray()
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._http.stream(
                    method, url, json=body, headers={"authorization": f"Bearer {control.token}"}
                ) as answer,
            ):
                if answer.status_code != httpx.codes.OK:
                    raise _strange(control)
                async for part in answer.aiter_raw():
                    content += part
                    if len(content) > MAX_ANSWER_BYTES:
                        raise _strange(control)
        except (httpx.HTTPError, TimeoutError) as error:
            raise AgentUnavailable(
                f"the agent at {control.address} does not answer; "
                "restart the workspace if this lasts"
            ) from error
        return bytes(content)


def _strange(control: ControlAddress) -> AgentUnavailable:
    return AgentUnavailable(
        f"the agent at {control.address} gave a strange answer; restart the workspace"
    )
