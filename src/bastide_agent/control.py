"""The control port (9989): what the control plane and the node ask of the agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bastide_agent.http.errors import ApiError, invalid
from bastide_agent.http.message import Request, Response, plain
from bastide_agent.http.router import Router
from bastide_agent.transfer.routes import register_backup

if TYPE_CHECKING:
    from bastide_agent.boot import Boot
    from bastide_agent.command import MainCommand
    from bastide_agent.runtime import Runtime
    from bastide_agent.ssh.switch import SshSwitch


class Control:
    """Health, and the switches of the runtime and SSH servers (docs/architecture.md)."""

    def __init__(
        self, boot: Boot, runtime: Runtime, command: MainCommand | None, ssh: SshSwitch
    ) -> None:
        self._boot = boot
        self._runtime = runtime
        self._ssh = ssh
        self._command = command
        self._started = time.monotonic()
        self.router = Router()
        self.router.add("GET", "/control/health", self.health)
        self.router.add("PUT", "/control/runtime", self.set_runtime)
        self.router.add("PUT", "/control/ssh", self.set_ssh)
        self.router.add("GET", "/control/ssh", self.ssh)
        self.router.add("GET", "/control/output", self.output)
        register_backup(self.router)

    async def health(self, request: Request) -> Response:
        """The agent is there."""
        del request
        uptime = round(time.monotonic() - self._started, 3)
        return plain({"status": "ok", "boot_id": self._boot.boot_id, "uptime": uptime})

    async def set_runtime(self, request: Request) -> Response:
        """Enable, disable, or rotate the token, live."""
        fields = await request.fields()
        if "enabled" not in fields:
            raise invalid("enabled", "enabled is required: true or false")
        if fields.flag("enabled"):
            token = fields.text("token", max_length=128)
            if not 32 <= len(token) <= 128 or token.strip("0123456789abcdef"):
                raise invalid("token", "token must be 32 to 128 lower-case hex digits")
            try:
                await self._runtime.enable(token)
            except OSError as error:
                message = f"port {self._runtime.port} cannot be used: {error.strerror}"
                raise ApiError(503, "port_in_use", message) from None
        else:
            await self._runtime.disable()
        running = self._runtime.enabled
        return plain({"enabled": running, "running": running, "port": self._runtime.port})

    async def set_ssh(self, request: Request) -> Response:
        """Enable with these keys and password, change them, or disable; live."""
        await self._ssh.set(await request.fields())
        return plain(self._ssh.status())

    async def ssh(self, request: Request) -> Response:
        """Whether the SSH server is wanted and there, with the end of its log."""
        del request
        return plain({**self._ssh.status(), "log": self._ssh.log()})

    async def output(self, request: Request) -> Response:
        """The last bytes the main command printed; `limit` at most 1 MiB."""
        limit = request.query.integer("limit", 65536, 0, 1024 * 1024)
        data = self._command.output.tail(limit) if self._command is not None else b""
        return Response(200, data, "application/octet-stream")
