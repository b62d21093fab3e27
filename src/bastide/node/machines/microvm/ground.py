"""What the microVMs of a host stand on: emulator, guest kernel and accelerator."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bastide.domain.machine import Resources
from bastide.node.errors import NotReady
from bastide.node.machines.microvm.program import HOME, Qemu
from bastide.node.machines.microvm.qemu import Accelerator

GUEST = "guest"
"""Below `state_dir/runtime`: a directory with the guest's kernel and initramfs."""
VMLINUX, INITRD = "vmlinux", "initrd"


class Shape(BaseModel):
    """What a guest that is brought back must find again, by name; sizes in cores and MiB."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    qemu: str
    kernel: str
    accelerator: Accelerator
    cpus: float
    memory_mb: int


@dataclass(frozen=True)
class Places:
    """Where the parts of a shape are on this host."""

    home: Path
    vmlinux: Path
    initrd: Path


class Ground:
    """The parts below `runtime`, as `bastide prepare` made them. `find` before use."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self.qemu = Qemu(runtime / HOME)
        self.accelerator = Accelerator.TCG
        self.accelerator_reason = "hardware virtualisation has not been tried yet"

    async def find(self) -> None:
        """Learn what there is."""
        await self.qemu.find()

    @property
    def kernel(self) -> Path:
        """The directory of the guest's kernel."""
        return self._runtime / GUEST

    @property
    def lacking(self) -> str | None:
        """Why no microVM can run here; None when they can."""
        if self.qemu.lacking:
            return self.qemu.lacking
        if not all((self.kernel / name).is_file() for name in (VMLINUX, INITRD)):
            return "the guest's kernel is not prepared: run bastide prepare"
        return None

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            NotReady: says why.
        """
        if self.lacking:
            raise NotReady(f"microVMs are not possible on this node: {self.lacking}")

    def shape(self, resources: Resources) -> Shape:
        """A guest of now. Raises NotReady."""
        self.check()
        return Shape(
            qemu=self.qemu.home.resolve().name,
            kernel=self.kernel.resolve().name,
            accelerator=self.accelerator,
            cpus=resources.cpus,
            memory_mb=resources.memory_mb,
        )

    async def places(self, shape: Shape) -> Places:
        """Where the parts of a shape are.

        Raises:
            NotReady: one is not there any more, or the accelerator is another.
        """
        if shape.accelerator is not self.accelerator:
            raise NotReady(
                f"it was saved with the accelerator {shape.accelerator}, this host has "
                f"{self.accelerator} now"
            )
        home, kernel = self._runtime / shape.qemu, self._runtime / shape.kernel
        found = Places(home, kernel / VMLINUX, kernel / INITRD)

        def missing() -> list[str]:
            return [each.name for each in (home, kernel) if not each.is_dir()]

        gone = await asyncio.to_thread(missing)
        if gone:
            raise NotReady(f"it needs {', '.join(gone)}, which is not on this host any more")
        return found
