"""Where a workspace may begin connections to: entries of `egress` (spec control-plane 4.4).

An entry is an IPv4 address or range, a host name, `*.` and a domain (every name below it, not the
domain itself), or `*` for everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

EVERYTHING = "*"
_WILDCARD = "*."
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_LONGEST = 253
_SHOWN = 100


def range_of(entry: str) -> IPv4Network:
    """An address or range.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        return IPv4Network(entry)
    except ValueError:
        pass
    try:
        meant = IPv4Network(entry, strict=False)
    except ValueError:
        raise ValueError(_no_range(entry)) from None
    raise ValueError(
        f"{entry[:_SHOWN]!r} has bits set outside of its mask; write {meant} for the whole range, "
        f"or {entry.partition('/')[0]} for one address"
    )


def _no_range(entry: str) -> str:
    try:
        IPv6Network(entry, strict=False)
    except ValueError:
        return (
            f"{entry[:_SHOWN]!r} is no IPv4 address or range such as 203.0.113.7 or 203.0.113.0/24"
        )
    return f"{entry[:_SHOWN]!r} is IPv6, which workspaces do not have; leave it out"


def name_of(text: str) -> str:
    """A host name in the form names are compared in: lower case, no final dot.

    Raises:
        ValueError: it is none.
    """
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if (
        len(name) > _LONGEST
        or not all(_LABEL.fullmatch(label) for label in labels)
        or labels[-1].isdigit()
    ):
        raise ValueError(f"{text[:_SHOWN]!r} is no host name")
    return name


@dataclass(frozen=True, slots=True)
class Names:
    """Host names and domains; a name is in it exactly, or below one of the domains."""

    exact: frozenset[str] = frozenset()
    below: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.exact or self.below)

    def __contains__(self, name: object) -> bool:
        """Whether a name, in the form `name_of` gives, is listed."""
        if not isinstance(name, str):
            return False
        if name in self.exact:
            return True
        while self.below:
            _, dot, name = name.partition(".")
            if not dot:
                return False
            if name in self.below:
                return True
        return False

    @property
    def entries(self) -> list[str]:
        """As they are written in `egress`."""
        return sorted([*self.exact, *(_WILDCARD + domain for domain in self.below)])


@dataclass(frozen=True, slots=True)
class Destinations:
    """A checked `egress`. `everything`: no restriction; then the rest says nothing."""

    everything: bool
    ranges: tuple[IPv4Network, ...]
    names: Names


def destinations(entries: tuple[str, ...] | list[str]) -> Destinations:
    """What the entries of `egress` say; none of them is everything.

    Raises:
        ValueError: an entry is not allowed; the text quotes it and says what is.
    """
    ranges: list[IPv4Network] = []
    exact: set[str] = set()
    below: set[str] = set()
    everything = not entries
    for entry in entries:
        if entry == EVERYTHING:
            everything = True
        elif entry.startswith(_WILDCARD):
            below.add(_named(entry.removeprefix(_WILDCARD), entry))
        elif _looks_like_a_name(entry):
            exact.add(_named(entry, entry))
        else:
            ranges.append(range_of(entry))
    whole = IPv4Network("0.0.0.0/0")
    return Destinations(
        everything=everything or whole in ranges,
        ranges=tuple(ranges),
        names=Names(frozenset(exact), frozenset(below)),
    )


def canonical(entry: str) -> str:
    """An entry as it is stored: names in lower case and without a final dot."""
    if entry != EVERYTHING and _looks_like_a_name(entry.removeprefix(_WILDCARD)):
        return entry.lower().removesuffix(".")
    return entry


def _looks_like_a_name(entry: str) -> bool:
    last = entry.removesuffix(".").rpartition(".")[2]
    return ":" not in entry and "/" not in entry and not last.isdigit()


def _named(name: str, entry: str) -> str:
    try:
        return name_of(name)
    except ValueError:
        raise ValueError(
            f"{entry[:_SHOWN]!r} is neither an IPv4 address or range nor a host name such as "
            "api.example.com or *.example.com; names in other scripts are written in their "
            "xn-- form"
        ) from None
