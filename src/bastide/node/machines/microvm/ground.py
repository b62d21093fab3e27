"""What the microVMs of a host stand on: emulator, guest kernel and accelerator."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bastide.domain.machine import Resources
from bastide.node.errors import NotReady
from bastide.node.machines.microvm.hardware import try_hardware
from bastide.node.machines.microvm.kernel import Kernel, find_kernel
from bastide.node.machines.microvm.program import HOME, Qemu
from bastide.node.machines.microvm.qemu import Accelerator
from bastide.node.machines.microvm.warm import Warm


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
    kernel: Kernel


class Ground:
    """The parts below `state_dir`, as `bastide prepare` made them. `find` before use."""

    def __init__(self, state_dir: Path, warm_starts: int = 0) -> None:
        self._state_dir = state_dir
        self.qemu = Qemu(state_dir / "runtime" / HOME)
        self.warm = Warm(state_dir / "warm", warm_starts)
        self.kernel: Kernel | None = None
        self.accelerator = Accelerator.TCG
        self.accelerator_reason = "hardware virtualisation has not been tried yet"

    async def find(self) -> None:
        """Learn what there is, and remove what an earlier node left unfinished."""
        await asyncio.to_thread(self.warm.sweep)
        await self.qemu.find()
        self.kernel = await asyncio.to_thread(find_kernel, self._state_dir)
        if self.lacking is None and self.kernel is not None:
            found = await asyncio.to_thread(
                try_hardware, self.qemu.home.parent, self.qemu.home, self.kernel
            )
            self.accelerator = Accelerator.KVM if found.usable else Accelerator.TCG
            self.accelerator_reason = found.reason

    @property
    def lacking(self) -> str | None:
        """Why no microVM can run here; None when they can."""
        if self.qemu.lacking:
            return self.qemu.lacking
        if self.kernel is None:
            return "the guest's kernel is not prepared: run bastide prepare"
        return None

    def shape(self, resources: Resources) -> Shape:
        """A guest of now.

        Raises:
            NotReady: none can run, and why.
        """
        if self.lacking or self.kernel is None:
            raise NotReady(f"microVMs are not possible on this node: {self.lacking}")
        return Shape(
            qemu=self.qemu.home.resolve().name,
            kernel=self.kernel.record.digest,
            accelerator=self.accelerator,
            cpus=resources.cpus,
            memory_mb=resources.memory_mb,
        )

    def places(self, shape: Shape) -> Places:
        """Where the parts of a shape are. Blocks briefly.

        Raises:
            NotReady: one is not there any more, or the accelerator is another.
        """
        if shape.accelerator is not self.accelerator:
            raise NotReady(
                f"it was saved with the accelerator {shape.accelerator}, this host has "
                f"{self.accelerator} now"
            )
        home = (self.qemu.home.parent / shape.qemu).resolve()
        kernel = find_kernel(self._state_dir, shape.kernel)
        if kernel is None or not home.is_dir():
            missing = "kernel" if kernel is None else "emulator"
            raise NotReady(f"the {missing} it was started with is not on this host any more")
        return Places(home, kernel)
