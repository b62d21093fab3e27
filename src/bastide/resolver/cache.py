"""Answers of upstream servers, kept for as long as they say."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

LONGEST = 3600
LONGEST_NEGATIVE = 60
_CACHED = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)

Key = tuple[str, int, bool]
"""Name in lower case, type, and whether signatures were asked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """What upstream said; `age` in whole seconds since."""

    rcode: dns.rcode.Rcode
    answer: tuple[dns.rrset.RRset, ...]
    authority: tuple[dns.rrset.RRset, ...]
    age: int = 0

    @classmethod
    def of(cls, message: dns.message.Message) -> Found:
        """The parts of an answer that are passed on."""
        return cls(message.rcode(), tuple(message.answer), tuple(message.authority))

    def fresh(self, rrsets: tuple[dns.rrset.RRset, ...]) -> list[dns.rrset.RRset]:
        """Record sets with the time to live they have left."""
        if not self.age:
            return list(rrsets)
        found = []
        for rrset in rrsets:
            copy = dns.rrset.from_rdata_list(rrset.name, max(0, rrset.ttl - self.age), list(rrset))
            found.append(copy)
        return found

    @property
    def lifetime(self) -> int:
        """Seconds it may be kept; 0: not at all (RFC 2308 for negative answers)."""
        if self.rcode not in _CACHED:
            return 0
        if self.answer:
            return min(LONGEST, *(rrset.ttl for rrset in self.answer))
        for rrset in self.authority:
            if rrset.rdtype == dns.rdatatype.SOA:
                return min(LONGEST_NEGATIVE, rrset.ttl, int(rrset[0].minimum))
        return 0


class Cache:
    """A bounded number of answers; those not asked for longest go first."""

    def __init__(self, size: int = 4096, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._kept: OrderedDict[Key, tuple[float, Found]] = OrderedDict()

    def get(self, key: Key) -> Found | None:
        """A kept answer, with its age."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        at, found = kept
        age = int(self._clock() - at)
        if age >= found.lifetime:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return Found(found.rcode, found.answer, found.authority, age)

    def put(self, key: Key, found: Found) -> None:
        """Keep an answer, if it may be."""
        if found.lifetime > 0:
            self._kept[key] = (self._clock(), found)
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
