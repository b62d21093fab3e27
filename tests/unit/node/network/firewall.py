"""Walks the rule model with a packet in hand, as the kernel would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from bastide.domain.network import NetworkPolicy
from bastide.node.network import chains, rules
from bastide.node.network.ruleset import (
    Chain,
    Condition,
    Crowded,
    Element,
    Jump,
    Key,
    LeaveAs,
    Log,
    Member,
    Paced,
    Part,
    Remembered,
    Value,
    Verdict,
    Within,
)

Field = str | int | IPv4Address
Packet = Mapping[Key, Field]


@dataclass
class Firewall:
    """The rules of a plan with some workspaces, and a judge.

    `resolved` and `active` are pairs of workspace and address; `eager` workspaces ask more than
    they may.
    """

    plan: chains.Plan
    policies: Mapping[IPv4Address, NetworkPolicy]
    resolved: Iterable[tuple[IPv4Address, IPv4Address]] = ()
    active: Iterable[tuple[IPv4Address, IPv4Address]] = ()
    eager: frozenset[IPv4Address] = frozenset()
    chains: dict[str, Chain] = field(init=False)
    sets: dict[str, list[tuple[Part, ...]]] = field(init=False)
    logged: list[Packet] = field(init=False)

    def __post_init__(self) -> None:
        self.chains = {chain.name: chain for chain in chains.base_chains(self.plan)}
        self.sets = {}
        self.logged = []
        for address, policy in self.policies.items():
            for element in rules.elements(address, policy, self.plan):
                self._fill(element)
        for name, pairs in ((chains.RESOLVED, self.resolved), (chains.ACTIVE, self.active)):
            for workspace, address in pairs:
                self._fill(Element(name, (workspace, address)))

    def _fill(self, element: Element) -> None:
        self.sets.setdefault(element.name, []).append(element.parts)

    def passes(self, hook: str, packet: Packet) -> bool:
        """Whether the packet gets through a hook (`prerouting`, `forward`, `input`, `output`)."""
        return self._walk(hook, packet) in (None, Verdict.ACCEPT)

    def _walk(self, name: str, packet: Packet) -> Verdict | None:
        for rule in self.chains[name].rules:
            if not all(self._holds(condition, packet) for condition in rule.conditions):
                continue
            if isinstance(rule.verdict, Log):
                self.logged.append(packet)
            elif isinstance(rule.verdict, Jump):
                decided = self._walk(rule.verdict.chain, packet)
                if decided is not None:
                    return decided
            elif rule.verdict is Verdict.RETURN:
                return None
            elif not isinstance(rule.verdict, LeaveAs):
                return rule.verdict
        return None

    def _holds(self, condition: Condition, packet: Packet) -> bool:
        if isinstance(condition, Crowded):
            return False
        if isinstance(condition, Remembered):
            return True
        if isinstance(condition, Paced):
            return (packet.get(condition.key) in self.eager) == condition.over
        values = [packet.get(key) for key in condition.keys]
        if any(value is None for value in values):
            return False  # the kernel leaves the rule when a packet has no such field
        found = [value for value in values if value is not None]
        if isinstance(condition, Within):
            workspace, address = found
            assert isinstance(address, IPv4Address)
            network = IPv4Network((int(address), condition.length), strict=False)
            return (workspace, network) in self.sets.get(condition.name, ())
        if isinstance(condition, Member):
            inside = any(
                all(map(_equal, found, element)) for element in self.sets.get(condition.name, ())
            )
        else:
            inside = any(_equal(found[0], wanted) for wanted in condition.values)
        return inside != condition.negate


def _equal(value: Field, wanted: Value) -> bool:
    if isinstance(wanted, IPv4Network):
        return isinstance(value, IPv4Address) and value in wanted
    if isinstance(wanted, str) and wanted.endswith("*"):
        return str(value).startswith(wanted[:-1])
    return value == wanted
