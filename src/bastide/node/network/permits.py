"""Which addresses workspaces may reach because a listed name has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from bastide.domain.egress import Names
from bastide.domain.resolving import LONGEST, SHORTEST

GRACE = 60
"""Seconds on top, so that names asked for again and again need no new entry each time."""
MOST = 1024
"""Addresses one workspace may have at a time."""


@dataclass
class Permit:
    """One address. `names` it was an answer for; None: from before the node was started."""

    until: float
    names: set[str] | None = field(default_factory=set)


@dataclass(frozen=True)
class Granted:
    """What may be given out, and what the firewall must know first (address → seconds).

    `seconds` is how long all of it is good for.
    """

    addresses: tuple[IPv4Address, ...] = ()
    seconds: int = 0
    lifetimes: Mapping[IPv4Address, int] = field(default_factory=dict)


class Permits:
    """The listed names of workspaces, and the addresses they were found to have."""

    def __init__(self) -> None:
        self._names: dict[IPv4Address, Names] = {}
        self._held: dict[IPv4Address, dict[IPv4Address, Permit]] = {}

    def adopt(self, workspace: IPv4Address, address: IPv4Address, until: float) -> None:
        """Take over what an earlier node has put into the firewall."""
        self._held.setdefault(workspace, {}).setdefault(address, Permit(until, None))

    def going(self, workspace: IPv4Address, names: Names) -> list[IPv4Address]:
        """The addresses that would have none of these names, to be forgotten by the firewall.

        Addresses from before the node was started stay only while no name is taken away.
        """
        before = self._names.get(workspace, names)
        shrunk = not (before.exact <= names.exact and before.below <= names.below)
        return [
            address
            for address, permit in self._held.get(workspace, {}).items()
            if not names
            or (shrunk if permit.names is None else not any(name in names for name in permit.names))
        ]

    def set_names(self, workspace: IPv4Address, names: Names) -> None:
        """Set the listed names, and drop the addresses that go with the others."""
        held = self._held.get(workspace, {})
        for address in self.going(workspace, names):
            del held[address]
        for permit in held.values():
            if permit.names is not None:
                permit.names = {name for name in permit.names if name in names}
        if names:
            self._names[workspace] = names
        else:
            self._names.pop(workspace, None)

    def forget(self, workspace: IPv4Address) -> list[IPv4Address]:
        """Forget a workspace; its addresses, to be forgotten by the firewall too."""
        self._names.pop(workspace, None)
        return list(self._held.pop(workspace, {}))

    def grant(
        self,
        workspace: IPv4Address,
        name: str,
        addresses: Iterable[IPv4Address],
        ttl: int,
        now: float,
    ) -> Granted:
        """Decide on the addresses of a name; forbidden ones were taken out before."""
        if name not in self._names.get(workspace, Names()):
            return Granted()
        held = self._held.setdefault(workspace, {})
        given: list[IPv4Address] = []
        lifetimes: dict[IPv4Address, int] = {}
        needed = min(max(ttl, SHORTEST), LONGEST)
        for address in addresses:
            if address not in held and len(held) >= MOST:
                continue
            permit = held.setdefault(address, Permit(now))
            if permit.names is None:
                permit.names = set()
            permit.names.add(name)
            given.append(address)
            if permit.until < now + needed:
                lifetimes[address] = needed + GRACE
                permit.until = now + needed + GRACE
        good = min((held[address].until for address in given), default=now) - now
        return Granted(tuple(given), int(good), lifetimes)

    def unwritten(self, workspace: IPv4Address, addresses: Iterable[IPv4Address]) -> None:
        """The firewall did not take them: they are to be written when they are asked for again."""
        held = self._held.get(workspace, {})
        for address in addresses:
            if address in held:
                held[address].until = 0.0

    def confirm(self, written: set[tuple[IPv4Address, IPv4Address]], now: float) -> bool:
        """Compare with what the firewall has; whether it has lost something it should have."""
        lost = False
        for workspace, held in self._held.items():
            for address, permit in held.items():
                if permit.until > now + 1 and (workspace, address) not in written:
                    lost, permit.until = True, 0.0
        return lost

    def prune(self, in_use: set[tuple[IPv4Address, IPv4Address]], now: float) -> None:
        """Drop what has run out and no connection uses."""
        for workspace, held in list(self._held.items()):
            for address, permit in list(held.items()):
                if permit.until < now and (workspace, address) not in in_use:
                    del held[address]
            if not held:
                del self._held[workspace]
