"""What a machine needs of the network; `bastide.node.network` implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, Protocol

from bastide.domain.network import BlockedLog, NetworkPolicy
from bastide.node.network.place import Place


class MachineNetwork(Protocol):
    """Addresses, interfaces and rules of this node's machines."""

    @property
    def nameservers(self) -> tuple[str, ...]:
        """Name servers a machine may ask."""

    def check(self, policy: NetworkPolicy) -> None:
        """Refuse a policy that cannot be put in force. Raises `Invalid`."""

    async def setup(self) -> None:
        """Prepare the host; repeating is harmless."""

    def reserve(self, machine: str) -> IPv4Address:
        """The machine's address, from now until `release`."""

    def release(self, machine: str) -> None:
        """Give the address back."""

    def address(self, machine: str) -> IPv4Address | None:
        """The reserved address."""

    async def attach(self, machine: str, pid: int, policy: NetworkPolicy) -> None:
        """Put an interface into the network namespace of `pid`, under `policy`."""

    async def attach_tap(self, machine: str, descriptor: int, policy: NetworkPolicy) -> None:
        """Make `descriptor` of a tap the machine's interface, under `policy`."""

    def place(self, machine: str) -> Place:
        """What a machine with its own kernel must know of its interface."""

    def linked(self, machine: str) -> bool:
        """Whether the machine has an interface now."""

    async def apply(self, machine: str, policy: NetworkPolicy) -> None:
        """Replace the policy of an attached machine."""

    async def detach(self, machine: str) -> None:
        """Remove interface and rules; harmless when there are none."""

    async def cut(self, machine: str, ports: Sequence[int] = ()) -> None:
        """End the host's own connections to a machine that is gone, and said nothing.

        With `ports`: those to them.
        """

    async def sweep(self, running: Mapping[str, NetworkPolicy]) -> Any:
        """Remove what belongs to no running machine; counts, and in `dark` who has no link."""

    def counters(self, machine: str) -> tuple[int, int]:
        """Bytes to and from the machine since it was attached."""

    async def blocked(self, machine: str) -> BlockedLog:
        """What the machine was refused lately."""

    async def close(self) -> None:
        """Let go of the firewall; everything stays in force."""
