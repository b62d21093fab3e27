"""The firewall of the workspaces: what is in force in the kernel, and how it is changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from bastide.domain.network import NetworkPolicy
from bastide.node.errors import NotReady
from bastide.node.network import chains, rules
from bastide.node.network.admission import Admission, admit
from bastide.node.network.nft import Nft
from bastide.node.network.permits import Granted, Permits
from bastide.node.network.ranges import NEVER, closed
from bastide.node.network.ruleset import Element, Part
from bastide.node.network.setelements import Change, SetElements

_State = frozenset[Element]
_NOTHING: _State = frozenset()


@dataclass(frozen=True)
class Rebuilt:
    """The workspaces the table had, and whether addresses opened by name had been lost."""

    present: frozenset[IPv4Address]
    lost: bool


class Firewall:
    """One nftables table.

    Not safe to be called twice at the same time, but for `permit`: `Network` sees to turns.

    Raises (all calls): `NotReady` when the kernel refuses; what was in force still is.
    """

    def __init__(self, plan: chains.Plan) -> None:
        self.plan = plan
        self._nft = Nft()
        self._sets = SetElements()
        self._held: dict[IPv4Address, _State] = {}
        self._permits = Permits()
        # Permits come between changes, and a permit must not be written after its name is gone.
        self._writing = asyncio.Lock()

    def admission(self, policy: NetworkPolicy) -> Admission:
        """What a policy admits. Raises Invalid."""
        return admit(policy, self.plan.subnet, self.plan.pool)

    async def setup(self) -> None:
        """Make the table, or bring its rules up to date and take over what is in its sets."""
        async with self._writing:
            await self._run(rules.setup_commands(self.plan))
            await asyncio.to_thread(self._adopt)

    async def teardown(self) -> None:
        """Remove the table."""
        async with self._writing:
            await self._run(rules.teardown_commands(self.plan))
            self._held.clear()
            self._permits = Permits()

    async def put(self, address: IPv4Address, policy: NetworkPolicy) -> None:
        """Put a policy in force in one transaction. Raises Invalid; then nothing has changed."""
        wanted = rules.elements(address, policy, self.plan)
        names = self.admission(policy).names
        async with self._writing:
            try:
                await self._change(address, wanted, self._permits.going(address, names))
            except NotReady:
                # Somebody else has changed our table: look again, once.
                await asyncio.to_thread(self._adopt)
                await self._change(address, wanted, self._permits.going(address, names))
            self._held[address] = wanted
            self._permits.set_names(address, names)

    async def remove(self, address: IPv4Address) -> None:
        """Remove all there is of a workspace; harmless if there is nothing."""
        async with self._writing:
            gone = self._permits.forget(address)
            try:
                await self._change(address, _NOTHING, gone)
            except NotReady:
                await asyncio.to_thread(self._adopt)
                await self._change(address, _NOTHING, self._permits.forget(address))
            self._held.pop(address, None)

    async def rebuild(self, policies: Mapping[IPv4Address, NetworkPolicy]) -> Rebuilt:
        """Write the whole table anew in one transaction, and say what was in it.

        Addresses that listed names have stay reachable for as long as they were to be. Policies
        must be allowed.
        """
        async with self._writing:
            present = await asyncio.to_thread(self._present)
            wanted = {
                address: rules.elements(address, policy, self.plan)
                for address, policy in policies.items()
            }
            names = {address: self.admission(policies[address]).names for address in policies}
            gone = {
                (str(address), str(permitted))
                for address in wanted
                for permitted in self._permits.going(address, names[address])
            }
            timed = {name: await asyncio.to_thread(self._timed, name) for name in chains.TIMED}
            kept = {
                name: {
                    pair: left
                    for pair, left in found.items()
                    if pair not in gone and names.get(IPv4Address(pair[0]))
                }
                for name, found in timed.items()
            }
            await self._run(
                [
                    *rules.teardown_commands(self.plan),
                    *rules.setup_commands(self.plan),
                    *rules.filling_commands(wanted.values(), self.plan),
                    *(
                        line
                        for name, found in kept.items()
                        for line in rules.timed_commands(name, found, self.plan)
                    ),
                ]
            )
            for address in set(self._held) - set(wanted):
                self._permits.forget(address)
            for address, listed in names.items():
                self._permits.set_names(address, listed)
            self._held = wanted
            now = time.monotonic()
            self._permits.prune(_addresses(kept[chains.ACTIVE]), now)
            lost = self._permits.confirm(_addresses(kept[chains.RESOLVED]), now)
        return Rebuilt(frozenset(present), lost)

    async def permit(
        self, asked: Iterable[tuple[IPv4Address, str, tuple[IPv4Address, ...], int]]
    ) -> list[Granted]:
        """Let workspaces reach the addresses of listed names, in one transaction for all.

        Each is workspace, name, addresses and time to live in seconds. The answer has, in the
        same order, what may be reached now.
        """
        never = (*NEVER, self.plan.subnet, *closed(self.plan.allow_private))
        async with self._writing:
            now = time.monotonic()
            granted: list[tuple[IPv4Address, Granted]] = []
            for workspace, name, addresses, ttl in asked:
                fine = [one for one in addresses if not any(one in network for network in never)]
                granted.append((workspace, self._permits.grant(workspace, name, fine, ttl, now)))
            changes = [
                change
                for workspace, grant in granted
                for change in rules.resolved(workspace, grant.lifetimes)
            ]
            try:
                await self._make(changes)
            except NotReady:
                for workspace, grant in granted:
                    self._permits.unwritten(workspace, grant.lifetimes)
                raise
            return [grant for _, grant in granted]

    def refused(self) -> dict[IPv4Address, int]:
        """Packets each workspace was refused since the table was written."""
        found = {}
        for element in self._nft.elements("set", self.plan.table, chains.REFUSED):
            inner = element.get("elem", {}) if isinstance(element, dict) else {}
            if "val" in inner:
                found[IPv4Address(inner["val"])] = int(inner.get("counter", {}).get("packets", 0))
        return found

    def close(self) -> None:
        """Let go of it; everything stays in force."""
        self._nft.close()
        self._sets.close()

    async def _change(
        self, address: IPv4Address, wanted: _State, gone: Iterable[IPv4Address]
    ) -> None:
        before = self._held.get(address, _NOTHING)
        await self._make([*rules.changes(before, wanted), *rules.forgotten(address, gone)])

    def _adopt(self) -> None:
        """Read what is in the table."""
        found: dict[IPv4Address, set[Element]] = {}
        for name in chains.SETS:
            for element in self._nft.elements("set", self.plan.table, name):
                address, parts = _parts_of(name, element)
                found.setdefault(address, set()).add(Element(name, parts))
        for key, value in self._nft.elements("map", self.plan.table, chains.LEAVE_AS):
            address = IPv4Address(key)
            element = Element(chains.LEAVE_AS, (address,), IPv4Address(value))
            found.setdefault(address, set()).add(element)
        self._held = {address: frozenset(one) for address, one in found.items()}
        now = time.monotonic()
        for name in chains.TIMED:
            for (workspace, permitted), left in self._timed(name).items():
                until = now + left if name == chains.RESOLVED else now
                self._permits.adopt(IPv4Address(workspace), IPv4Address(permitted), until)

    def _present(self) -> set[IPv4Address]:
        own = self._nft.elements("set", self.plan.table, chains.OWN)
        return {_parts_of(chains.OWN, element)[0] for element in own}

    def _timed(self, name: str) -> dict[tuple[str, str], int]:
        """The elements of a timed set, with the seconds they have left."""
        return {
            tuple(element["elem"]["val"]["concat"]): int(element["elem"]["expires"])
            for element in self._nft.elements("set", self.plan.table, name)
        }

    async def _make(self, changes: list[Change]) -> None:
        if changes:
            await asyncio.to_thread(self._sets.change, self.plan.table, changes)

    async def _run(self, commands: list[str]) -> None:
        if commands:
            await asyncio.to_thread(self._nft.run, "\n".join(commands))


def _addresses(pairs: Iterable[tuple[str, str]]) -> set[tuple[IPv4Address, IPv4Address]]:
    return {(IPv4Address(workspace), IPv4Address(address)) for workspace, address in pairs}


def _parts_of(name: str, element: Any) -> tuple[IPv4Address, tuple[Part, ...]]:
    """The workspace an element is of, and its key as `rules.elements` has it."""
    if isinstance(element, str):
        address = IPv4Address(element)
        return address, (address,)
    first, second = element["concat"]
    if name == chains.OWN:
        return IPv4Address(second), (str(first), IPv4Address(second))
    address = IPv4Address(first)
    if isinstance(second, int):
        return address, (address, second)
    length = name.removeprefix(chains.CALLERS).removeprefix(chains.RANGES)
    if length.isdigit():
        return address, (address, IPv4Network(f"{second}/{length}"))
    return address, (address, IPv4Address(second))
