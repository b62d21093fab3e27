"""Which tier runs a machine: what was asked for, what this host can, and why."""

from __future__ import annotations

from bastide.domain.machine import Driver, TierInfo
from bastide.node.errors import NotReady
from bastide.node.machines.container import Container
from bastide.node.machines.host import Host
from bastide.node.machines.machine import Machine
from bastide.node.machines.microvm.machine import MicroVm
from bastide.node.machines.microvm.qemu import Accelerator

_CLASSES: dict[str, type[Container | MicroVm]] = {each.tier: each for each in (Container, MicroVm)}


class Tiers:
    """The tiers of a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def make(self, tier: str, machine: str) -> Machine:
        """A machine of a tier, not booted."""
        return _CLASSES[tier](machine, self._host)

    def choose(self, wanted: Driver) -> str:
        """The tier of a machine that wants `wanted`; `auto` leaves it to the settings and the host.

        Raises:
            NotReady: it wants a microVM, and why there can be none.
        """
        tier = self.usual[0] if wanted is Driver.AUTO else wanted.value
        lacking = self._host.microvm.lacking
        if tier == MicroVm.tier and lacking:
            raise NotReady(f"microVMs are not possible on this node: {lacking}")
        return tier

    @property
    def usual(self) -> tuple[str, str]:
        """The tier of whoever leaves it to this host, and why."""
        ground = self._host.microvm
        driver = Driver(self._host.settings.machines.driver)
        if driver is not Driver.AUTO:
            return driver.value, "the settings say so"
        if ground.lacking:
            return Container.tier, f"there are no microVMs: {ground.lacking}"
        if ground.accelerator is not Accelerator.KVM:
            return Container.tier, (
                f"microVMs would be emulated, which is slow: {ground.accelerator_reason}"
            )
        return MicroVm.tier, "hardware runs microVMs at full speed"

    def info(self, no_snapshots: str | None) -> tuple[TierInfo, ...]:
        """Each tier, as it is here. `no_snapshots` is why containers have none, if they have."""
        ground = self._host.microvm
        kernel = ground.kernel.record.release if ground.kernel else None
        return (
            TierInfo(
                tier=Container.tier,
                ready=True,
                runtime=self._host.runc.describe(),
                snapshot=no_snapshots is None,
                snapshot_unavailable_reason=no_snapshots,
            ),
            TierInfo(
                tier=MicroVm.tier,
                ready=ground.lacking is None,
                reason=ground.lacking or ground.accelerator_reason,
                runtime=f"qemu {ground.qemu.version.text}" if ground.qemu.version else "",
                kernel=kernel,
                accelerator=ground.accelerator.value if ground.lacking is None else None,
                snapshot=ground.lacking is None,
                snapshot_unavailable_reason=ground.lacking,
            ),
        )
