"""The network of the machines of one host."""

from __future__ import annotations

import asyncio
import pwd
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

import structlog

from bastide.domain.network import BlockedLog, NetworkPolicy
from bastide.domain.resolving import Restriction
from bastide.node.errors import Invalid, NotFound
from bastide.node.network import bandwidth, link, peers
from bastide.node.network.admission import Admission
from bastide.node.network.blocked import BlockedLogs
from bastide.node.network.chains import Plan
from bastide.node.network.desk import Desk
from bastide.node.network.firewall import Firewall
from bastide.node.network.lease import Leases
from bastide.node.network.names import wildcards
from bastide.node.network.nflog import PacketLog
from bastide.node.network.place import Place
from bastide.settings import Settings

CLOSED = NetworkPolicy(allow_internet=False)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SweepCount:
    """What a sweep found and set right.

    `links` and `rules` were removed because nothing runs there; `restored` machines had lost
    their rules; `dark` machines run without a link and need `attach` again.
    """

    links: int = 0
    rules: int = 0
    restored: int = 0
    dark: tuple[str, ...] = ()


class Network:
    """Addresses, links and firewall of the machines (architecture section 7).

    Changes take turns, so calls may come at the same time. What is asked holds in the kernel
    when a call returns; only addresses are kept in a file. A machine never has a link without
    its rules: rules come first and go last, and the firewall drops whatever comes from a link
    it has no rules for.

    Raises (all calls): `NotReady` when the kernel refuses; the reason is in its message.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.subnet = settings.network.subnet
        self.gateway = self.subnet.network_address + 1
        self._leases = Leases(settings.state_dir / "network" / "leases.json", self.subnet)
        self._firewall = Firewall(self._read_plan())
        self._blocked = BlockedLogs(self._firewall.plan)
        self._packets = PacketLog(self._firewall.plan.log_group, self._blocked.packet)
        self._desk = Desk(
            settings.resolver_socket, settings.resolver_user, self._firewall, self._blocked.told
        )
        self._changes = asyncio.Lock()
        self._mtu = 1500
        # Put in force since the last sweep: newer than what the sweep's caller may know.
        self._fresh: dict[str, NetworkPolicy] = {}
        self._speeds: dict[IPv4Address, float | None] = {}

    @property
    def nameservers(self) -> tuple[str, ...]:
        """The name server of a workspace, for its resolv.conf: the gateway."""
        return (str(self.gateway),)

    async def setup(self) -> None:
        """Forwarding, the subnet's `unreachable` route, our nftables table, an ear for refusals.

        Repeating is harmless; links and rules of running machines stay, and their addresses are
        adopted if the lease file does not know them. The resolver is heard from the first sweep
        on.

        Raises:
            Conflict: the subnet is used for something else on this host.
        """
        async with self._changes:
            self._firewall.plan = self._read_plan()
            await asyncio.to_thread(link.prepare_host, self.subnet)
            self._mtu = await asyncio.to_thread(link.uplink_mtu)
            for found in link.links(self._firewall.plan.table, self.subnet):
                if found.machine and not self._leases.adopt(found.machine, found.address):
                    _log.warning("stale link", workspace=found.machine, link=found.name)
            await self._firewall.setup()
            try:
                await asyncio.to_thread(self._packets.open)
            except OSError as error:
                _log.warning("what is blocked cannot be logged", reason=str(error))
            else:
                self._packets.listen()

    async def teardown(self) -> None:
        """Remove our links, route and table. Leases stay; forwarding stays as it is."""
        async with self._changes:
            for found in link.links(self._firewall.plan.table, self.subnet):
                await asyncio.to_thread(link.delete, found.address)
            await asyncio.to_thread(self._sweep_devices, ())
            await asyncio.to_thread(link.restore_host, self.subnet)
            await self._firewall.teardown()
            self._fresh.clear()
            self._speeds.clear()
            await self._desk.close()

    def reserve(self, machine: str) -> IPv4Address:
        """The machine's address, the same until `release`. Waits for the disk.

        Raises:
            NoSpace: the subnet is full.
        """
        return self._leases.reserve(machine)

    def release(self, machine: str) -> None:
        """Give the address back; harmless if there is none. Detach first. Waits for the disk."""
        address = self._leases.get(machine)
        self._leases.release(machine)
        if address is not None:
            self._blocked.forget(address)

    def place(self, machine: str) -> Place:
        """What the machine's own kernel must know of its link.

        Raises:
            NotFound: no address is reserved.
        """
        address = self._reserved(machine)
        return Place(address, self.gateway, link.inner_mac(address), self._mtu)

    def linked(self, machine: str) -> bool:
        """Whether the machine has a link now."""
        address = self._leases.get(machine)
        return address is not None and link.exists(address)

    def address(self, machine: str) -> IPv4Address | None:
        """The machine's address, if one is reserved."""
        return self._leases.get(machine)

    def check(self, policy: NetworkPolicy) -> None:
        """Refuse a policy that could not be put in force.

        Raises:
            Invalid: `details["field"]` names the list with the wrong entry.
        """
        self._firewall.admission(policy)

    async def attach(self, machine: str, pid: int, policy: NetworkPolicy) -> None:
        """Put the policy in force, then link the network namespace of `pid` to the host.

        Afterwards the namespace has `eth0` with the machine's address, a default route, `lo`
        up and no IPv6. A link the machine had before is replaced.

        Raises:
            Invalid: the policy is not allowed; nothing was changed.
            NotFound: no address is reserved.
            Conflict: the process is gone, or shares the host's network namespace.
        """
        await self._attach(machine, policy, link.create, pid)

    async def attach_tap(self, machine: str, descriptor: int, policy: NetworkPolicy) -> None:
        """Put the policy in force, then make `descriptor` (`tap.opened`) the machine's link.

        What holds the descriptor must be told its `place`. A link the machine had before is
        replaced.

        Raises:
            Invalid: the policy is not allowed; nothing was changed.
            NotFound: no address is reserved.
        """
        await self._attach(machine, policy, link.create_tap, descriptor)

    async def _attach(
        self, machine: str, policy: NetworkPolicy, create: Callable[..., None], end: int
    ) -> None:
        address = self._reserved(machine)
        admission = self._firewall.admission(policy)
        async with self._changes:
            await self._firewall.put(address, policy)
            try:
                owner = link.Owner(self._firewall.plan.table, machine)
                await asyncio.to_thread(create, owner, address, self.gateway, end, mtu=self._mtu)
                self._speeds.pop(address, None)
                await self._limit(address, policy.bandwidth_mbps)
            except BaseException:
                await asyncio.to_thread(link.delete, address)
                await asyncio.to_thread(bandwidth.remove, address)
                await self._firewall.remove(address)
                raise
            await self._follow(address, admission)
            self._fresh[machine] = policy

    async def apply(self, machine: str, policy: NetworkPolicy) -> None:
        """Put a policy in force on a linked machine, in one transaction.

        Connections it still admits go on; the others end at their next packet. A machine
        without a link is left alone: it gets its policy with `attach`.

        Raises:
            Invalid: the policy is not allowed; the one in force stays.
            NotFound: no address is reserved.
        """
        address = self._reserved(machine)
        admission = self._firewall.admission(policy)
        async with self._changes:
            if link.exists(address):
                await self._firewall.put(address, policy)
                await self._limit(address, policy.bandwidth_mbps)
                await self._follow(address, admission)
                self._fresh[machine] = policy

    async def detach(self, machine: str) -> None:
        """Remove the machine's link, then its rules; harmless if absent."""
        address = self._leases.get(machine)
        if address is None:
            return
        async with self._changes:
            self._fresh.pop(machine, None)
            self._speeds.pop(address, None)
            await asyncio.to_thread(link.delete, address)
            await asyncio.to_thread(bandwidth.remove, address)
            await self._firewall.remove(address)
            await self._desk.tell(address, None)

    async def cut(self, machine: str, ports: Sequence[int] = ()) -> None:
        """End the host's own connections to a machine that is gone, and said nothing.

        With `ports`: those to them.
        """
        address = self._leases.get(machine)
        if address is not None:
            await asyncio.to_thread(peers.cut, address, ports)

    async def sweep(self, running: Mapping[str, NetworkPolicy]) -> SweepCount:
        """Make links and rules those of the running machines, and say what was wrong.

        The table is written anew in one transaction, so whatever was changed or lost in it is
        right afterwards. Machines linked or changed since the last sweep are spared even if
        `running` does not know them yet. A policy that is not allowed counts as closed.
        """
        async with self._changes:
            self._firewall.plan = self._read_plan()
            wanted = {**running, **self._fresh}
            removed, linked = await asyncio.to_thread(self._sweep_links, wanted)
            policies = {
                address: self._allowed(machine, wanted[machine])
                for machine, address in linked.items()
            }
            await asyncio.to_thread(link.prepare_host, self.subnet)
            await asyncio.to_thread(self._sweep_devices, policies)
            self._blocked.counted(await asyncio.to_thread(self._firewall.refused))
            rebuilt = await self._firewall.rebuild(policies)
            restrictions = {}
            for address, policy in policies.items():
                admission = self._firewall.admission(policy)
                await self._limit(address, policy.bandwidth_mbps)
                self._blocked.follow(address, admission)
                restriction = _restriction(admission)
                if restriction is not None:
                    restrictions[address] = restriction
            await self._desk.tell_all(restrictions, again=rebuilt.lost)
            await self._desk.open()  # not before: to who knows no restriction all names are open
            self._fresh.clear()
            return SweepCount(
                links=removed,
                rules=len(rebuilt.present - set(policies)),
                restored=len(set(policies) - rebuilt.present),
                dark=tuple(sorted(set(wanted) - set(linked))),
            )

    def counters(self, machine: str) -> tuple[int, int]:
        """Bytes into and out of the workspace since it was attached."""
        address = self._leases.get(machine)
        return (0, 0) if address is None else link.counters(address)

    async def blocked(self, machine: str) -> BlockedLog:
        """What the workspace was refused lately."""
        address = self._leases.get(machine)
        if address is None:
            return BlockedLog()
        packets = await asyncio.to_thread(self._firewall.refused)
        return self._blocked.read(address, packets.get(address, 0))

    async def close(self) -> None:
        """Let go of the firewall; everything stays in force."""
        self._packets.close()
        await self._desk.close()
        self._firewall.close()

    async def _follow(self, address: IPv4Address, admission: Admission) -> None:
        self._blocked.follow(address, admission)
        await self._desk.tell(address, _restriction(admission))

    async def _limit(self, address: IPv4Address, wanted: float | None) -> None:
        """Keep a workspace to what it wants, and to what this server allows at most."""
        limits = [one for one in (wanted, self._settings.machines.bandwidth_mbps) if one]
        mbps = min(limits, default=None)
        if address not in self._speeds or self._speeds[address] != mbps:
            await asyncio.to_thread(bandwidth.limit, address, mbps)
            self._speeds[address] = mbps

    def _reserved(self, machine: str) -> IPv4Address:
        address = self._leases.get(machine)
        if address is None:
            raise NotFound(f"{machine} has no address; reserve one first")
        return address

    def _allowed(self, machine: str, policy: NetworkPolicy) -> NetworkPolicy:
        try:
            self.check(policy)
        except Invalid as error:
            _log.error("policy refused, network closed", workspace=machine, reason=error.message)
            return CLOSED
        return policy

    def _sweep_links(self, wanted: Iterable[str]) -> tuple[int, dict[str, IPv4Address]]:
        """Remove the links of no wanted machine; how many, and the addresses that are linked."""
        machines = set(wanted)
        removed, linked = 0, {}
        for found in link.links(self._firewall.plan.table, self.subnet):
            lease = self._leases.get(found.machine)
            if found.machine in machines and lease == found.address:
                linked[found.machine] = found.address
            else:
                removed += link.delete(found.address)
        return removed, linked

    def _sweep_devices(self, linked: Iterable[IPv4Address]) -> None:
        prefixes = tuple(name[2:].rstrip("*") for name in wildcards(self.subnet))
        bandwidth.sweep(linked, prefixes)

    def _read_plan(self) -> Plan:
        network = self._settings.network
        control = {0, *_user(self._settings.user)}
        edge = _user(self._settings.edge_user)
        bastion = _user(self._settings.ssh_user)
        return Plan(
            table=network.table,
            subnet=self.subnet,
            allow_private=network.allow_private,
            connections=network.connections,
            control_users=tuple(sorted(control)),
            edge_user=edge[0] if edge else None,
            ssh_user=bastion[0] if bastion else None,
            pool=network.outbound_pool,
            # One group for each table, so that two clouds of a host hear only their own.
            log_group=zlib.crc32(network.table.encode()) % 0xFFFF + 1,
        )


def _restriction(admission: Admission) -> Restriction | None:
    """What the resolver must know of a workspace."""
    if admission.open:
        return None
    return Restriction(names=tuple(admission.names.entries) if admission.names else None)


def _user(name: str) -> tuple[int, ...]:
    """The user's id; nothing if there is no such user, who then is let in nowhere."""
    try:
        return (pwd.getpwnam(name).pw_uid,)
    except KeyError:
        return ()
