"""A typed model of the nftables rules we use, and its text form.

The rules are values, so that a test can walk them with a packet in hand and so that nothing is
ever built by joining strings that came from a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network


class Key(StrEnum):
    """What a rule looks at.

    A connection's two ends are taken from conntrack's tuples, not from the packet: the initiator
    and the responder are the same for both directions, and the responder is the true one behind
    any address translation.
    """

    IN = "iifname"
    OUT = "oifname"
    SOURCE = "ip saddr"
    DESTINATION = "ip daddr"
    INITIATOR = "ct original ip saddr"
    RESPONDER = "ct reply ip saddr"
    SERVICE = "ct reply proto-src"
    DIRECTION = "ct direction"
    STATE = "ct state"
    PROTOCOL = "meta l4proto"
    ICMP = "icmp type"
    RESET = "tcp flags & rst"
    USER = "meta skuid"


Value = str | int | IPv4Address | IPv4Network


@dataclass(frozen=True)
class Match:
    """The keys, joined, are (or with `negate` are not) among the values."""

    keys: tuple[Key, ...]
    values: tuple[Value, ...]
    negate: bool = False

    def __str__(self) -> str:
        sign = " !=" if self.negate else ""
        quoted = self.keys[0] in (Key.IN, Key.OUT)
        values = [f'"{value}"' if quoted else str(value) for value in self.values]
        return f"{_joined(self.keys)}{sign} {_any_of(values)}"


@dataclass(frozen=True)
class Member:
    """The keys, joined, are (or with `negate` are not) an element of a named set."""

    keys: tuple[Key, ...]
    name: str
    negate: bool = False

    def __str__(self) -> str:
        sign = " !=" if self.negate else ""
        return f"{_joined(self.keys)}{sign} @{self.name}"


@dataclass(frozen=True)
class Within:
    """The first key, joined to the network of that length the second is in, is in a named set."""

    keys: tuple[Key, Key]
    name: str
    length: int

    def __str__(self) -> str:
        mask = IPv4Network((0, self.length)).netmask
        return f"{self.keys[0]} . {self.keys[1]} & {mask} @{self.name}"


@dataclass(frozen=True)
class Crowded:
    """The key's value has more than `limit` connections, counted in a dynamic set."""

    key: Key
    name: str
    limit: int

    def __str__(self) -> str:
        return f"add @{self.name} {{ {self.key} ct count over {self.limit} }}"


@dataclass(frozen=True)
class Paced:
    """The key's value comes at most `rate` times a second after a first `burst`; `over`: more."""

    key: Key
    name: str
    rate: int
    burst: int
    over: bool = False

    def __str__(self) -> str:
        over = "over " if self.over else ""
        pace = f"limit rate {over}{self.rate}/second burst {self.burst} packets"
        return f"update @{self.name} {{ {self.key} {pace} }}"


@dataclass(frozen=True)
class Remembered:
    """Always holds: the keys, joined, are put into a dynamic set or kept there for longer.

    `seconds` 0: as long as the set says. A set made with a counter counts the packets.
    """

    keys: tuple[Key, ...]
    name: str
    seconds: int = 0

    def __str__(self) -> str:
        timeout = f" timeout {self.seconds}s" if self.seconds else ""
        return f"update @{self.name} {{ {_joined(self.keys)}{timeout} }}"


class Verdict(StrEnum):
    """What happens to a packet."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    RESET = "reject with tcp reset"
    REJECT = "reject with icmpx type admin-prohibited"
    MASQUERADE = "masquerade"


@dataclass(frozen=True)
class Jump:
    """Walk another chain, and come back if it decides nothing."""

    chain: str

    def __str__(self) -> str:
        return f"jump {self.chain}"


@dataclass(frozen=True)
class Log:
    """Tell whoever listens on the netlink group of the packet's first bytes, and go on."""

    group: int

    def __str__(self) -> str:
        return f"log group {self.group} snaplen 64"


@dataclass(frozen=True)
class LeaveAs:
    """The packet's source becomes what a named map has for the key, if it has something."""

    key: Key
    name: str

    def __str__(self) -> str:
        return f"snat ip to {self.key} map @{self.name}"


Outcome = Verdict | Jump | Log | LeaveAs
Condition = Match | Member | Within | Crowded | Paced | Remembered


@dataclass(frozen=True)
class Rule:
    """If every condition holds, the verdict."""

    verdict: Outcome
    conditions: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        return " ".join([*map(str, self.conditions), str(self.verdict)])


Part = str | int | IPv4Address | IPv4Network
"""One part of an element's key: an interface, a port, an address or a range."""


@dataclass(frozen=True)
class Element:
    """One element of a named set, or of a map when it has a value."""

    name: str
    parts: tuple[Part, ...]
    value: IPv4Address | None = None

    def __str__(self) -> str:
        key = _joined([_shown(part) for part in self.parts])
        return key if self.value is None else f"{key} : {self.value}"


@dataclass(frozen=True)
class Chain:
    """Rules in order. A chain with a `hook` is where the kernel starts; its policy is accept."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: str = ""

    def declaration(self, table: str) -> str:
        """The command that makes the chain, harmless if it is there."""
        hook = f" {{ {self.hook}; policy accept; }}" if self.hook else ""
        return f"add chain inet {table} {self.name}{hook}"

    def content(self, table: str) -> list[str]:
        """The commands that replace its rules."""
        return [
            f"flush chain inet {table} {self.name}",
            *(f"add rule inet {table} {self.name} {rule}" for rule in self.rules),
        ]


def match(key: Key, *values: Value) -> Match:
    """The key is one of the values."""
    return Match((key,), values)


def rule(verdict: Outcome, *conditions: Condition) -> Rule:
    """A rule, written verdict first."""
    return Rule(verdict, conditions)


def _joined(keys: Sequence[str]) -> str:
    return " . ".join(keys)


def _shown(part: Part) -> str:
    """As nftables writes it; of a range its first address, for the set says how long it is."""
    if isinstance(part, IPv4Network):
        return str(part.network_address)
    return f'"{part}"' if isinstance(part, str) else str(part)


def _any_of(values: Sequence[str]) -> str:
    if not values:
        raise ValueError("a match needs a value")
    return values[0] if len(values) == 1 else "{ " + ", ".join(values) + " }"
