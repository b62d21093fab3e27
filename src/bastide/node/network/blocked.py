"""What workspaces were refused, as their owners are shown it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

from bastide.domain.network import Blocked, BlockedLog
from bastide.domain.resolving import Told
from bastide.node.network.admission import Admission
from bastide.node.network.chains import Plan
from bastide.node.network.nflog import Seen
from bastide.node.network.ranges import NEVER, closed

MOST_ENTRIES = 200
"""Kept of one workspace; the ones not seen for longest go."""
MOST_NAMES = 20_000
"""Addresses of all workspaces whose name is remembered."""

_Subject = tuple[str, str, int | None]


@dataclass
class _Entry:
    first: datetime
    last: datetime
    name: str | None
    reason: str
    count: int = 1


class BlockedLogs:
    """One bounded log for each workspace, in memory: a restart of the node begins anew."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._logs: dict[IPv4Address, OrderedDict[_Subject, _Entry]] = {}
        self._names: OrderedDict[tuple[IPv4Address, IPv4Address], str] = OrderedDict()
        self._admissions: dict[IPv4Address, Admission] = {}
        self._packets: dict[IPv4Address, int] = {}

    def follow(self, workspace: IPv4Address, admission: Admission) -> None:
        """Keep a log of a workspace, and explain it with this policy."""
        self._admissions[workspace] = admission
        self._logs.setdefault(workspace, OrderedDict())

    def forget(self, workspace: IPv4Address) -> None:
        """Drop all of a workspace."""
        for kept in (self._logs, self._admissions, self._packets):
            kept.pop(workspace, None)
        for pair in [pair for pair in self._names if pair[0] == workspace]:
            del self._names[pair]

    def packet(self, seen: Seen) -> None:
        """A packet was refused."""
        name = self._names.get((seen.source, seen.destination))
        reason = self._reason(seen)
        self._add(seen.source, (seen.protocol, str(seen.destination), seen.port), name, reason)

    def told(self, told: Told) -> None:
        """The resolver told a workspace addresses, or refused it a name."""
        if told.workspace not in self._logs:
            return
        if not told.addresses:
            reason = "the name is not in egress, or has only addresses that are never reached"
            self._add(told.workspace, ("dns", told.name, None), told.name, reason)
        for address in told.addresses:
            self._names[told.workspace, address] = told.name
            self._names.move_to_end((told.workspace, address))
        while len(self._names) > MOST_NAMES:
            self._names.popitem(last=False)

    def counted(self, packets: Mapping[IPv4Address, int]) -> None:
        """The firewall's counters are about to begin at zero again."""
        for workspace, count in packets.items():
            self._packets[workspace] = self._packets.get(workspace, 0) + count

    def read(self, workspace: IPv4Address, packets: int) -> BlockedLog:
        """The log of a workspace, newest first; `packets` is what the firewall counts now."""
        return BlockedLog(
            blocked=tuple(
                Blocked(
                    first=entry.first,
                    last=entry.last,
                    protocol=protocol,
                    destination=destination,
                    port=port,
                    name=entry.name,
                    reason=entry.reason,
                    count=entry.count,
                )
                for (protocol, destination, port), entry in reversed(
                    self._logs.get(workspace, OrderedDict()).items()
                )
            ),
            packets=self._packets.get(workspace, 0) + packets,
        )

    def _add(
        self, workspace: IPv4Address, subject: _Subject, name: str | None, reason: str
    ) -> None:
        log = self._logs.get(workspace)
        if log is None:
            return
        now = datetime.now(UTC)
        entry = log.get(subject)
        if entry is None:
            log[subject] = _Entry(now, now, name, reason)
        else:
            entry.last, entry.reason, entry.name = now, reason, name or entry.name
            entry.count += 1
            log.move_to_end(subject)
        while len(log) > MOST_ENTRIES:
            log.popitem(last=False)

    def _reason(self, seen: Seen) -> str:
        """Why, as far as the policy of now tells; the first cause that applies."""
        plan, to = self._plan, seen.destination
        policy = self._admissions.get(seen.source)
        dark = policy is None or not policy.internet
        ports = () if policy is None else policy.destination_ports
        listed = policy is None or policy.anywhere or _within(to, policy.ranges)
        causes = (
            (to == plan.gateway, "the host is closed, but for names at port 53"),
            (to in plan.subnet, "another workspace, which does not admit this one at this port"),
            (_within(to, NEVER), "metadata and other addresses that are never reached"),
            (_within(to, closed(plan.allow_private)),
                "private networks are closed; the operator opens them (network.allow_private)"),
            (dark, "allow_internet is false"),
            (bool(ports) and seen.port not in ports, "the port is not in egress_ports"),
            (not listed, "the destination is not in egress, or no listed name was resolved to it"),
        )  # fmt: skip
        return next(
            (text for applies, text in causes if applies),
            "an address of the host, or too many connections at a time",
        )


def _within(address: IPv4Address, networks: Iterable[IPv4Network]) -> bool:
    return any(address in network for network in networks)
