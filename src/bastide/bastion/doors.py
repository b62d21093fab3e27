"""Which credential opens which workspace: written by the control plane, read by the bastion.

One file, replaced in one step. It holds no password and no private key: keys by their
fingerprints, passwords by what the server's key makes of them.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bastide.domain.machine import WORKSPACE_ID
from bastide.domain.ssh import SSH_ID
from bastide.thread import in_thread

log = structlog.get_logger(__name__)

MOST_BYTES = 64 * 1024 * 1024


class Door(BaseModel):
    """One workspace with SSH enabled. `address` is None while its machine does not run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: str = Field(pattern=WORKSPACE_ID)
    ssh_id: str = Field(pattern=f"^{SSH_ID}$")
    address: IPv4Address | None = None
    keys: tuple[str, ...] = Field((), description="fingerprints")
    password: str | None = Field(None, description="its proof", repr=False)


class DoorFile(BaseModel):
    """The whole file; `key` is what proofs of passwords are made with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field("", repr=False)
    doors: tuple[Door, ...] = ()


def read_doors(path: Path) -> DoorFile:
    """What the file says; one that cannot be read has no doors."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        return DoorFile.model_validate_json(content)
    except (OSError, ValidationError) as error:
        log.error("bastion.doors_unreadable", error=type(error).__name__)  # noqa: TRY400
        return DoorFile()


class Porter:
    """The control plane's side: keeps the file.

    It takes up what an earlier one has written, so that a new start of the control plane closes
    nobody's sessions. A call whose write failed (OSError) is made good by the next one.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self._turn = asyncio.Lock()
        self._written = read_doors(path) if path.exists() else None
        found = self._written.doors if self._written is not None else ()
        self._doors = {door.workspace: door for door in found}

    async def publish(self, door: Door) -> None:
        """Put a workspace's door in force."""
        self._doors[door.workspace] = door
        await self._write()

    async def withdraw(self, workspace: str) -> None:
        """Close a workspace's door."""
        self._doors.pop(workspace, None)
        await self._write()

    async def sync(self, doors: Iterable[Door]) -> None:
        """Put these doors in the place of all there are."""
        self._doors = {door.workspace: door for door in doors}
        await self._write()

    async def _write(self) -> None:
        """Bring the file to what is known now; a change made meanwhile is in it too."""
        async with self._turn:
            wanted = DoorFile(key=self._key, doors=tuple(self._doors.values()))
            if wanted != self._written or not self._path.exists():
                await in_thread(self._replace, wanted.model_dump_json().encode())
                self._written = wanted

    def _replace(self, content: bytes) -> None:
        """Its directory gives the file the bastion's group."""
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(fresh, flags, 0o640), "wb") as file:
                file.write(content)
            fresh.replace(self._path)
        finally:
            fresh.unlink(missing_ok=True)


class Doors:
    """The bastion's side: what the file says now. What cannot be read opens nothing."""

    def __init__(self, path: Path, subnet: IPv4Network) -> None:
        self._path = path
        self._subnet = subnet
        self._seen: tuple[int, int, int] | None = None
        self._read = 0
        self._key = ""
        self._doors: dict[str, Door] = {}
        self._by_key: dict[str, set[str]] = {}
        self._by_password: dict[str, set[str]] = {}

    @property
    def key(self) -> str:
        """What proofs of passwords are made with; empty when there are no doors yet."""
        self.refresh()
        return self._key

    def find(self, ssh_id: str) -> Door | None:
        """The door of this name."""
        self.refresh()
        return self._doors.get(ssh_id)

    def opened_by_key(self, fingerprint: str) -> frozenset[str]:
        """The names of the doors a key opens."""
        self.refresh()
        return frozenset(self._by_key.get(fingerprint, ()))

    def opened_by_password(self, proof: str) -> frozenset[str]:
        """The names of the doors a password opens."""
        self.refresh()
        return frozenset(self._by_password.get(proof, ()))

    def refresh(self) -> int:
        """Read the file if it is another one than before; how many times it was read so far."""
        try:
            info = self._path.stat()
            seen = (info.st_ino, info.st_mtime_ns, info.st_size)
        except OSError:
            seen = None
        if seen == self._seen:
            return self._read
        self._seen = seen
        self._read += 1
        self._take(read_doors(self._path) if seen is not None else DoorFile())
        return self._read

    def _take(self, found: DoorFile) -> None:
        self._key = found.key
        self._doors, self._by_key, self._by_password = {}, {}, {}
        for door in found.doors:
            if door.address is not None and door.address not in self._subnet:
                log.error("bastion.strange_address", workspace=door.workspace)
                continue
            self._doors[door.ssh_id] = door
            for fingerprint in door.keys:
                self._by_key.setdefault(fingerprint, set()).add(door.ssh_id)
            if door.password:
                self._by_password.setdefault(door.password, set()).add(door.ssh_id)
