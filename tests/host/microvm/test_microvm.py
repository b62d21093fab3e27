"""The microVM tier against the Machine contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.contract.machine import MachineContract, Make
from tests.host.microvm.conftest import ID_BASE
from tests.host.node.conftest import READY, script, spec

from bastide.node.machines.host import Host
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.machine import Machine
from bastide.node.machines.microvm.machine import MicroVm
from bastide.settings import Settings

pytestmark = pytest.mark.host

BEHAVIOURS = {
    "ready": READY,
    "stubborn": "cat > /dev/null; trap '' TERM; echo READY; while :; do sleep 60 & wait; done",
    "failing": "echo cannot go on; exit 3",
    "silent": "exec sleep 60",
    "flooding": "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done",
}


class TestMicroVm(MachineContract):
    spec = spec()
    ids = IdRange(ID_BASE)

    @pytest.fixture
    async def make(self, ground: Host, plain_bundle: None) -> AsyncIterator[Make]:
        self.digest = ground.images.digest("debian-12")
        ground.network.reserve(self.spec.id)
        ground.disks.create(self.spec.id, self.spec.resources.disk_mb)
        self.made: list[MicroVm] = []

        async def build(behaviour: str) -> Machine:
            timeout = 1.0 if behaviour == "silent" else 120.0
            machines = ground.settings.machines.model_copy(update={"boot_timeout": timeout})
            settings: Settings = ground.settings.model_copy(update={"machines": machines})
            argv = script(BEHAVIOURS[behaviour])
            self.host = replace(ground, settings=settings, argv=argv)
            self.made.append(MicroVm(self.spec.id, self.host))
            return self.made[-1]

        yield build
        for machine in self.made:
            await machine.let_go()
        await MicroVm(self.spec.id, ground).clean()
        ground.disks.remove(self.spec.id)
        ground.network.release(self.spec.id)

    async def again(self, machine: Machine) -> Machine:
        await machine.let_go()
        self.made.append(MicroVm(machine.id, self.host))
        return self.made[-1]
