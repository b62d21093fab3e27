"""Walks the rule model with a packet in hand, as the kernel would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from bastide.domain.network import NetworkPolicy
from bastide.node.network import rules
from bastide.node.network.names import host_end, suffix
from bastide.node.network.ruleset import (
    Chain,
    Condition,
    Crowded,
    Dispatch,
    Jump,
    Key,
    Member,
    Value,
    Verdict,
)

Field = str | int | IPv4Address
Packet = Mapping[Key, Field]


@dataclass
class Firewall:
    """The rules of a plan with some workspaces, and a judge."""

    plan: rules.Plan
    policies: Mapping[IPv4Address, NetworkPolicy]
    chains: dict[str, Chain] = field(init=False)

    def __post_init__(self) -> None:
        made = list(rules.base_chains(self.plan))
        for address, policy in self.policies.items():
            made += rules.workspace_chains(address, policy, self.plan)
        self.chains = {chain.name: chain for chain in made}

    def passes(self, hook: str, packet: Packet) -> bool:
        """Whether the packet gets through a hook (`prerouting`, `forward`, `input`, `output`)."""
        return self._walk(hook, packet) in (None, Verdict.ACCEPT)

    def _walk(self, name: str, packet: Packet) -> Verdict | None:
        for rule in self.chains[name].rules:
            if not all(self._holds(condition, packet) for condition in rule.conditions):
                continue
            target: str | None
            if isinstance(rule.verdict, Jump):
                target = rule.verdict.chain
            elif isinstance(rule.verdict, Dispatch):
                target = self._dispatch(rule.verdict, packet)
            elif rule.verdict is Verdict.RETURN:
                return None
            else:
                return rule.verdict
            decided = self._walk(target, packet) if target else None
            if decided is not None:
                return decided
        return None

    def _dispatch(self, verdict: Dispatch, packet: Packet) -> str | None:
        address = packet.get(verdict.key)
        if not isinstance(address, IPv4Address) or address not in self.policies:
            return None
        return f"{rules.MAPS[verdict.name]}_{suffix(address)}"

    def _holds(self, condition: Condition, packet: Packet) -> bool:
        if isinstance(condition, Crowded):
            return False
        values = [packet.get(key) for key in condition.keys]
        if any(value is None for value in values):
            return False  # the kernel leaves the rule when a packet has no such field
        found = [value for value in values if value is not None]
        if isinstance(condition, Member):
            assert condition.name == rules.OWN
            link, address = found
            own = isinstance(address, IPv4Address) and address in self.policies
            inside = own and link == host_end(IPv4Address(address))
        else:
            inside = any(_equal(found[0], wanted) for wanted in condition.values)
        return inside != condition.negate


def _equal(value: Field, wanted: Value) -> bool:
    if isinstance(wanted, IPv4Network):
        return isinstance(value, IPv4Address) and value in wanted
    if isinstance(wanted, str) and wanted.endswith("*"):
        return str(value).startswith(wanted[:-1])
    return value == wanted
