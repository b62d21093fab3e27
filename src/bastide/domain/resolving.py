"""What node and resolver tell each other: one JSON document a line on the node's second socket.

The resolver answers workspaces' questions for names and has no privilege; the node decides which
addresses a workspace may reach, and puts them into the firewall before the answer goes out.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from pydantic import BaseModel, ConfigDict, Field

SHORTEST, LONGEST = 60, 3600
"""Seconds an address may be reached, whatever the answer's time to live says. Programs keep
addresses for longer than they may; and connections that are used go on anyway."""
MOST_ADDRESSES = 256
LINE = 256 * 1024
"""Bytes of the longest line."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Restriction(_Line):
    """How far a workspace's questions are answered.

    `names` are the entries of `egress` that are host names; None answers every name, and the node
    is told which addresses it has.
    """

    names: tuple[str, ...] | None = None


class Restrictions(_Line):
    """From the node: what holds now. Workspaces that are in none may ask for everything.

    `whole` replaces all that was told before; otherwise None takes one restriction away.
    """

    number: int
    whole: bool = False
    workspaces: dict[IPv4Address, Restriction | None] = Field(default_factory=dict)


class Grant(_Line):
    """From the node: those of the addresses asked for that may be given out, for some seconds.

    In that time the same answer may be given out again without asking, unless a restriction of
    the workspace has come since.
    """

    number: int
    addresses: tuple[IPv4Address, ...] = ()
    seconds: int = 0


class Ask(_Line):
    """From the resolver: a listed name has these addresses, for `ttl` seconds; may they be told?"""

    number: int
    workspace: IPv4Address
    name: str = Field(max_length=255)
    addresses: tuple[IPv4Address, ...] = Field(max_length=MOST_ADDRESSES)
    ttl: int = Field(ge=0)


class Told(_Line):
    """From the resolver: a workspace was told these addresses, or was refused the name."""

    workspace: IPv4Address
    name: str = Field(max_length=255)
    addresses: tuple[IPv4Address, ...] = Field((), max_length=MOST_ADDRESSES)


class Heard(_Line):
    """From the resolver: the restrictions of that number are in force."""

    number: int


class FromResolver(_Line):
    """One line of the resolver's: exactly one of these."""

    ask: Ask | None = None
    told: Told | None = None
    heard: Heard | None = None


class FromNode(_Line):
    """One line of the node's: exactly one of these."""

    restrictions: Restrictions | None = None
    grant: Grant | None = None
