"""The bastion's SSH server: it forwards to workspaces whose credential was proven, and no more."""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import asyncssh
import structlog

from bastide.bastion.doors import Door, Doors
from bastide.bastion.passage import Passage, connect
from bastide.bastion.wariness import Wariness
from bastide.domain.machine import SSH_PORT
from bastide.domain.ssh import SSH_ID, USER, password_proof

log = structlog.get_logger(__name__)

LOGIN_SECONDS = 60
CONNECT_SECONDS = 10.0
ALIVE_SECONDS = 30
LOOK_SECONDS = 0.25  # between looks at what the control plane says
STRANGERS = 256  # connections that have proven nothing yet
STRANGERS_PER_SOURCE = 32
PASSAGES = 128  # open at once by one connection
REFUSALS = 10  # of one connection, after which it ends
HASHING = 2  # passwords looked at together: each takes 16 MiB
PASSWORD_BYTES = 256
NO_SHELL = "the bastion has no shell: use ssh root@ID -J root@BASTION"
_NAME = re.compile(SSH_ID)
_PROHIBITED = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
_FAILED = asyncssh.OPEN_CONNECT_FAILED

Opened = Callable[[], frozenset[str]]
"""The names of the doors a proven credential opens now."""


@dataclass
class Bastion:
    """What all connections share."""

    doors: Doors
    wariness: Wariness = field(default_factory=Wariness)
    guests: set[Guest] = field(default_factory=set)
    strangers: Counter[str] = field(default_factory=Counter)
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(HASHING))

    async def listen(self, at: socket.socket, key: asyncssh.SSHKey) -> asyncssh.SSHAcceptor:
        """Serve whoever comes to a listening socket, with this host key."""
        return await asyncssh.create_server(
            lambda: Guest(self),
            sock=at,
            server_host_keys=[key],
            server_version="Bastide",
            login_timeout=LOGIN_SECONDS,
            keepalive_interval=ALIVE_SECONDS,
            keepalive_count_max=4,
            compression_algs=None,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_pty=False,
            allow_scp=False,
        )

    async def watch(self) -> None:
        """End what is no longer allowed, soon after the control plane has said so."""
        known = 0
        while True:
            # Any question may have read the file meanwhile: what counts is whether it is news here.
            if (read := self.doors.refresh()) != known:
                known = read
                for guest in tuple(self.guests):
                    guest.review()
            await asyncio.sleep(LOOK_SECONDS)


class Guest(asyncssh.SSHServer):
    """One connection."""

    def __init__(self, bastion: Bastion) -> None:
        self._bastion = bastion
        self._conn: asyncssh.SSHServerConnection | None = None
        self._source = ""
        self._stranger = False
        self._proving: Opened | None = None
        self._proven: Opened | None = None
        self._method = ""
        self._passages: dict[Passage, str] = {}
        self._refusals = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Take it, unless too many are at the door already."""
        self._conn = conn
        peer = conn.get_extra_info("peername")
        self._source = str(peer[0]) if peer else ""
        strangers = self._bastion.strangers
        if strangers.total() >= STRANGERS or strangers[self._source] >= STRANGERS_PER_SOURCE:
            log.warning("bastion.crowded", source=self._source)
            conn.abort()
            return
        self._stranger = True
        strangers[self._source] += 1
        self._bastion.guests.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        del exc
        if self._stranger:
            log.info("bastion.left", source=self._source, tried=self._method or "nothing")
        self._known()
        self._bastion.guests.discard(self)
        for passage in tuple(self._passages):
            passage.close()

    def begin_auth(self, username: str) -> bool:
        """Everyone must prove something."""
        del username
        return True

    def public_key_auth_supported(self) -> bool:
        """Keys are always heard."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether the key opens anything for this name.

        Not yet proven: a client also asks with keys it has only seen. The last one asked about
        before the success is the one whose signature was checked, as nothing is awaited between.
        """
        fingerprint = key.get_fingerprint()
        doors = self._bastion.doors
        self._proving = lambda: _aimed(username, doors.opened_by_key(fingerprint))
        self._method = "key"
        return bool(self._proving())

    def password_auth_supported(self) -> bool:
        """Passwords are heard until too many of a source were wrong."""
        return self._bastion.wariness.listens(self._source)

    async def validate_password(self, username: str, password: str) -> bool:
        """Whether the password opens anything for this name; a wrong one is answered slowly."""
        bastion = self._bastion
        if not bastion.wariness.listens(self._source):
            return False
        opened = await self._opened_by(username, password)
        if not bastion.wariness.listens(self._source):  # others of that source were wrong meanwhile
            return False
        if opened is not None and opened():
            self._proving, self._method = opened, "password"
            return True
        target = username if _NAME.fullmatch(username) else ""
        delay = bastion.wariness.failed(self._source, target)
        log.warning(
            "bastion.refused", source=self._source, method="password", target=target, delay=delay
        )
        await asyncio.sleep(delay)
        return False

    async def _opened_by(self, username: str, password: str) -> Opened | None:
        doors = self._bastion.doors
        key = doors.key
        if not key or len(password.encode()) > PASSWORD_BYTES:
            return None
        async with self._bastion.hashing:
            proof = await asyncio.to_thread(password_proof, password, key)
        return lambda: _aimed(username, doors.opened_by_password(proof))

    def auth_completed(self) -> None:
        """What was being proven is proven."""
        self._known()
        self._proven = self._proving
        opens = sorted(self._proven()) if self._proven else []
        log.info(
            "bastion.entered", source=self._source, method=self._method, opens=opens[:5],
            doors=len(opens),
        )  # fmt: skip

    def session_requested(self) -> bool:
        """No shell, no command, no file transfer here."""
        raise asyncssh.ChannelOpenError(_PROHIBITED, NO_SHELL)

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        """Forward to the SSH port of a workspace whose credential was proven."""
        del orig_host, orig_port
        name = dest_host.lower()
        opened = self._proven() if self._proven else frozenset[str]()
        door = self._bastion.doors.find(name) if name in opened else None
        if dest_port != SSH_PORT or door is None:
            target = name if _NAME.fullmatch(name) else ""
            log.warning("bastion.not_forwarded", source=self._source, target=target)
            self._refuse()
            raise asyncssh.ChannelOpenError(
                _PROHIBITED,
                "the bastion forwards only to port 22 of workspaces that this credential opens",
            )
        return cast("Awaitable[asyncssh.SSHTCPSession[bytes]]", self._forward(door))

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        """Nothing listens here for anybody."""
        del listen_host, listen_port
        return False

    def unix_connection_requested(self, dest_path: str) -> bool:
        """No sockets of the host."""
        del dest_path
        return False

    def unix_server_requested(self, listen_path: str) -> bool:
        """No sockets of the host."""
        del listen_path
        return False

    def tun_requested(self, unit: int | None) -> bool:
        """No tunnels."""
        del unit
        return False

    def tap_requested(self, unit: int | None) -> bool:
        """No tunnels."""
        del unit
        return False

    def review(self) -> None:
        """End what the control plane no longer allows."""
        if self._proven is None:
            return
        opened = self._proven()
        for passage, name in tuple(self._passages.items()):
            if name not in opened:
                log.info("bastion.closed", source=self._source, target=name)
                passage.close()
        if not opened and self._conn is not None:
            self._conn.disconnect(asyncssh.DISC_BY_APPLICATION, "SSH access was taken back")

    def _refuse(self) -> None:
        """Count who looks for workspaces that are not his; who goes on is sent away."""
        self._bastion.wariness.refused(self._source)
        self._refusals += 1
        if self._refusals >= REFUSALS and self._conn is not None:
            self._conn.disconnect(asyncssh.DISC_BY_APPLICATION, "too many refused connections")

    async def _forward(self, door: Door) -> Passage:
        if len(self._passages) >= PASSAGES:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE,
                f"{PASSAGES} workspaces or sessions are open already",
            )
        if door.address is None:
            raise asyncssh.ChannelOpenError(
                _FAILED, f"the workspace {door.ssh_id} does not run: start it and try again"
            )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                far = await connect(str(door.address))
        except OSError:  # a time-out among them
            raise asyncssh.ChannelOpenError(
                _FAILED, f"the SSH server of {door.ssh_id} does not answer: restart the workspace"
            ) from None
        if self not in self._bastion.guests:
            far.close()
            raise asyncssh.ChannelOpenError(_FAILED, "the connection is gone")
        if self._proven is None or door.ssh_id not in self._proven():
            far.close()
            raise asyncssh.ChannelOpenError(_PROHIBITED, "access was taken back meanwhile")
        passage = Passage(far, self._passages.pop)
        self._passages[passage] = door.ssh_id
        log.info("bastion.forwarded", source=self._source, target=door.ssh_id)
        return passage

    def _known(self) -> None:
        """No stranger any more."""
        if self._stranger:
            self._stranger = False
            strangers = self._bastion.strangers
            strangers[self._source] -= 1
            if strangers[self._source] <= 0:
                del strangers[self._source]


def _aimed(username: str, opened: frozenset[str]) -> frozenset[str]:
    """A name other than root narrows what a credential opens to the workspace of that name."""
    return opened if username == USER else opened & {username}
