"""Slowing those who guess passwords: by where they come from and by what they aim at.

Keys are not slowed: nobody guesses one, and whoever has one must not be locked out by others
who share his address.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

FORGIVEN = 30.0  # seconds after which one failure is forgotten
FIRST_DELAY, LAST_DELAY = 0.5, 8.0  # seconds an answer to a wrong password takes
PATIENCE = 10  # failures of one source after which it may say no more passwords
UNAIMED = 3  # failures that one wrong password counts for which was aimed at no workspace
REMEMBERED = 10_000  # sources, and names


class Failures:
    """Failures by name; each is forgotten after `FORGIVEN` seconds, one after the other."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: OrderedDict[str, float] = OrderedDict()

    def count(self, name: str) -> int:
        """How many there are now."""
        left = self._until.get(name, 0.0) - self._clock()
        return max(0, math.ceil(left / FORGIVEN))

    def add(self, name: str, number: int = 1) -> int:
        """One more, or `number`; how many there are now."""
        until = max(self._until.pop(name, 0.0), self._clock()) + FORGIVEN * number
        self._until[name] = until
        if len(self._until) > REMEMBERED:
            self._until.popitem(last=False)
        return self.count(name)


class Wariness:
    """What is remembered of wrong passwords, and of workspaces asked for that are not opened."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._sources = Failures(clock)
        self._targets = Failures(clock)

    def listens(self, source: str) -> bool:
        """Whether this source may still say passwords."""
        return self._sources.count(neighbourhood(source)) < PATIENCE

    def failed(self, source: str, target: str) -> float:
        """Note a wrong password; how many seconds the answer must take.

        `target` is the workspace it was aimed at, or empty: it was said for any of them, and is a
        guess at the passwords of all. Such guesses of all sources also slow each other.
        """
        count = self._sources.add(neighbourhood(source), 1 if target else UNAIMED)
        count = max(count, self._targets.add(target))
        return min(FIRST_DELAY * 2.0 ** (count - 1), LAST_DELAY)

    def refused(self, source: str) -> None:
        """Note that a workspace was asked for which the credential does not open."""
        self._sources.add(neighbourhood(source))


def neighbourhood(source: str) -> str:
    """Who counts as one: an IPv4 address, or the /64 that one IPv6 customer has."""
    try:
        address = ip_address(source)
    except ValueError:
        return source
    if not isinstance(address, IPv6Address):
        return source
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
