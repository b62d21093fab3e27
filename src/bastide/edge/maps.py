"""The gateway map: what the edge knows of each workspace, one line each.

A line is `<workspace id> <state>:<generation>:<address>:<raw token>`. One map holds all four, so
that whatever HAProxy reads of a workspace belongs together: no order of changes can pair an old
generation with a new token, or an open state with another machine's address.

The control plane writes the file (0600, replaced in one step); HAProxy reads a checked copy of
it when it starts. It is not synced to the disk: after a power cut no machine runs, and the
control plane sends the whole map before it starts one.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal, get_args

from bastide.domain.machine import WORKSPACE_ID

MAP_NAME = "workspaces.map"
MAP_LIMIT = 64 * 1024 * 1024

GatewayState = Literal["open", "closed", "disabled", "paused", "down"]

_TOKEN = re.compile(r"[0-9a-f]{32,128}")
_ABSENT = "-"
_MOST_GENERATIONS = 2**31 - 1


class GatewayEntryError(ValueError):
    """A value that must not get into the map; the message names it."""


@dataclass(frozen=True, slots=True)
class GatewayEntry:
    """What the edge may do with requests for one workspace.

    States: `open` (pass), `closed` (public access is off), `disabled` (runtime access is off),
    `paused` (its processes are frozen), `down` (no machine runs). Only an open entry must have
    an address and a raw token; the others may leave them out. A workspace that is not in the map
    does not exist for the edge.

    Raises:
        GatewayEntryError: a value is not what its field holds; nothing of the token is named.
    """

    workspace_id: str
    address: str | None
    generation: int
    state: GatewayState
    raw_token: str | None = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(WORKSPACE_ID, self.workspace_id) or self.workspace_id.endswith("\n"):
            raise GatewayEntryError(f"{self.workspace_id!r} is no workspace id")
        if self.state not in get_args(GatewayState):
            raise GatewayEntryError(f"{self.state!r} is no state of the gateway")
        if type(self.generation) is not int or not 0 <= self.generation <= _MOST_GENERATIONS:
            raise GatewayEntryError(f"{self.generation!r} is no token generation")
        if self.raw_token is not None and not _TOKEN.fullmatch(self.raw_token):
            raise GatewayEntryError("the raw token must be 32 to 128 hex digits")
        if self.address is not None and not _is_address(self.address):
            raise GatewayEntryError(f"{self.address!r} is no IPv4 address")
        if self.state == "open" and (self.address is None or self.raw_token is None):
            raise GatewayEntryError("an open workspace needs an address and a raw token")

    def inside(self, subnet: IPv4Network) -> bool:
        """Whether the address, if there is one, is a workspace's: in the subnet, not its ends."""
        if self.address is None:
            return True
        address = IPv4Address(self.address)
        ends = (subnet.network_address, subnet.network_address + 1, subnet.broadcast_address)
        return address in subnet and address not in ends

    def value(self) -> str:
        """The entry's value in the map, for HAProxy's `field` converter."""
        address, token = self.address or _ABSENT, self.raw_token or _ABSENT
        return f"{self.state}:{self.generation}:{address}:{token}"

    def line(self) -> str:
        """The entry as a line of the map file."""
        return f"{self.workspace_id} {self.value()}\n"


def parse_line(line: str) -> GatewayEntry:
    """Read one line of the map file.

    Raises:
        GatewayEntryError: it is no line that `GatewayEntry.line` makes.
    """
    parts = re.fullmatch(
        r"(ws_[0-9a-f]+) ([a-z]+):([0-9]{1,10}):([0-9.]+|-):([0-9a-f]+|-)\n?", line, re.ASCII
    )
    if parts is None:
        raise GatewayEntryError("the line is no entry of the gateway map")
    workspace_id, state, generation, address, token = parts.groups()
    return GatewayEntry(
        workspace_id=workspace_id,
        address=None if address == _ABSENT else address,
        generation=int(generation),
        state=state,  # type: ignore[arg-type]  # checked by the entry itself
        raw_token=None if token == _ABSENT else token,
    )


def read_map(directory: Path, subnet: IPv4Network) -> tuple[dict[str, GatewayEntry], int]:
    """Read the map file, following no link and believing no line unchecked.

    Root reads it for the edge although another user writes it.

    Args:
        directory: where `workspaces.map` is.
        subnet: where the addresses of workspaces must be.

    Returns:
        The entries by workspace id (none when there is no file), and how many lines were wrong.

    Raises:
        OSError: the file cannot be read, is no regular file or is larger than 64 MiB.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(directory / MAP_NAME, flags)
    except FileNotFoundError:
        return {}, 0
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{directory / MAP_NAME} is no regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(MAP_LIMIT + 1)
    finally:
        os.close(handle)
    if len(content) > MAP_LIMIT:
        raise OSError(f"{directory / MAP_NAME} is larger than {MAP_LIMIT} bytes")
    entries: dict[str, GatewayEntry] = {}
    wrong = 0
    for line in content.decode("ascii", "replace").splitlines():
        try:
            entry = parse_line(line)
        except GatewayEntryError:
            wrong += 1
            continue
        if entry.inside(subnet):
            entries[entry.workspace_id] = entry
        else:
            wrong += 1
    return entries, wrong


def write_map(directory: Path, lines: Iterable[str]) -> None:
    """Replace the map file in one step (0600). There is one writer at a time.

    Raises:
        OSError: the directory cannot be written.
    """
    write_private(directory / MAP_NAME, "".join(lines).encode("ascii"))


def write_private(path: Path, content: bytes) -> None:
    """Replace a file (0600) in one step; a reader sees the old content or the new.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)


def _is_address(text: str) -> bool:
    try:
        return str(IPv4Address(text)) == text
    except ValueError:
        return False
