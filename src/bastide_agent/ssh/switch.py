"""SSH on and off. The server's code is loaded when it is first wanted: most never want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bastide_agent.http.errors import ApiError
from bastide_agent.http.fields import Fields

if TYPE_CHECKING:
    from bastide_agent.process import Places
    from bastide_agent.ssh.server import SshServer

PORT = 22
LOG_SHOWN = 16 * 1024  # bytes


class SshSwitch:
    """Holds the server once there is one."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._server: SshServer | None = None

    async def set(self, fields: Fields) -> None:
        """Do what the control plane says.

        Raises:
            ApiError: 400 for a wrong field, 503 when the server's files cannot be written.
        """
        from bastide_agent.ssh.access import Access  # noqa: PLC0415
        from bastide_agent.ssh.server import SshServer  # noqa: PLC0415

        access = Access.of(fields)
        if self._server is None:
            if not access.enabled:
                return
            self._server = SshServer(self._places, PORT)
        try:
            await self._server.apply(access)
        except OSError as error:
            message = f"the files of the SSH server cannot be written: {error.strerror}"
            raise ApiError(503, "ssh_failed", message) from None

    def status(self) -> dict[str, object]:
        """`enabled`, `running`, `port`, and why it does not run."""
        server = self._server
        enabled, running = (server.enabled, server.running) if server else (False, False)
        why = server.journal.last_line() if server and enabled and not running else None
        return {"enabled": enabled, "running": running, "port": PORT, "error": why}

    def log(self) -> str:
        """The end of the server's log."""
        return "" if self._server is None else self._server.journal.tail(LOG_SHOWN)

    def start_no_more(self) -> None:
        """The machine is going down: what ends now stays down."""
        if self._server is not None:
            self._server.start_no_more()

    async def stop(self) -> None:
        """End the server and its sessions."""
        if self._server is not None:
            await self._server.stop()
