"""What machines share on this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bastide.domain.machine import AGENT_ARGV
from bastide.node.cgroups import Cgroups, detect
from bastide.node.disks import Disks
from bastide.node.errors import NotReady
from bastide.node.images import Images
from bastide.node.machines.network import MachineNetwork
from bastide.node.machines.runc import CURRENT, Runc
from bastide.settings import Settings


@dataclass(frozen=True)
class Host:
    """The parts of the node a machine is put together from. `argv` is its process 1."""

    settings: Settings
    runc: Runc
    images: Images
    disks: Disks
    cgroups: Cgroups
    network: MachineNetwork
    argv: tuple[str, ...] = AGENT_ARGV

    @classmethod
    def of(cls, settings: Settings, network: MachineNetwork) -> Host:
        """The host as the settings say it is."""
        state, run = settings.state_dir.absolute(), settings.run_dir.absolute()
        return cls(
            settings=settings,
            runc=Runc(state / "runtime" / CURRENT / "runc", run / "runc"),
            images=Images(state / "images"),
            disks=Disks(state / "disks"),
            # the nft table's name is what sets two nodes on one host apart; so here too
            cgroups=detect(settings.network.table),
            network=network,
        )

    @property
    def machines_dir(self) -> Path:
        """Where machines are put together: `ID/` with mounts, configuration and boot record."""
        return self.settings.run_dir.absolute() / "machines"

    def bundle(self) -> Path:
        """The agent bundle in force.

        Raises:
            NotReady: it was not built.
        """
        current = self.settings.state_dir.absolute() / "bundle" / "current"
        try:
            return current.resolve(strict=True)
        except OSError:
            raise NotReady(f"the agent bundle is missing ({current}): run script/up") from None
