"""What machines share on this host."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bastide.domain.machine import AGENT_ARGV
from bastide.node.cgroups import Cgroups, detect
from bastide.node.disks import Disks
from bastide.node.errors import NotReady
from bastide.node.images import Images
from bastide.node.machines.cores import Cores
from bastide.node.machines.criu import CONFIG_NAME, HOME, Criu
from bastide.node.machines.microvm.ground import Ground
from bastide.node.machines.network import MachineNetwork
from bastide.node.machines.runc import CURRENT, Runc
from bastide.node.snapshots import Snapshots
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
    criu: Criu
    snapshots: Snapshots
    microvm: Ground
    argv: tuple[str, ...] = AGENT_ARGV
    cores: Cores = field(default_factory=Cores)

    @classmethod
    def of(cls, settings: Settings, network: MachineNetwork) -> Host:
        """The host as the settings say it is."""
        state, run = settings.state_dir.resolve(), settings.run_dir.resolve()
        runc = Runc(state / "runtime" / CURRENT / "runc", run / "runc")
        return cls(
            settings=settings,
            runc=runc,
            images=Images(state / "images", default_registry=settings.images.default_registry),
            disks=Disks(state / "disks"),
            # the nft table's name is what sets two nodes on one host apart; so here too
            cgroups=detect(settings.network.table),
            network=network,
            criu=Criu(state / "runtime" / HOME / "criu", run / CONFIG_NAME, runc),
            snapshots=Snapshots(state / "snapshots"),
            microvm=Ground(state, settings.machines.warm_starts),
        )

    @property
    def machines_dir(self) -> Path:
        """Where machines are put together: `ID/` with mounts, configuration and boot record."""
        return self.settings.run_dir.resolve() / "machines"

    def check_passage(self) -> None:
        """Make the directory of the machines, and see that their first processes reach it.

        Those have ids that own nothing on the host, and must pass through every parent.

        Raises:
            NotReady: names the directory that is closed.
        """
        self.machines_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        for directory in (self.machines_dir, *self.machines_dir.parents):
            if not directory.stat().st_mode & 0o001:
                raise NotReady(
                    f"{directory} is closed to others, and machines below it could not start: "
                    f"chmod o+x {directory}"
                )

    def bundle(self, name: str = "current") -> Path:
        """The agent bundle in force, or the one of a digest.

        Raises:
            NotReady: it is not there.
        """
        current = self.settings.state_dir.resolve() / "bundle" / name
        try:
            return current.resolve(strict=True)
        except OSError:
            raise NotReady(f"the agent bundle is missing ({current}): run script/up") from None
