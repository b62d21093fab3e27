"""The container tier against the Machine contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.contract.machine import MachineContract, Make
from tests.host.node.conftest import READY, script, spec

from bastide.node.machines.container import Container
from bastide.node.machines.host import Host
from bastide.node.machines.machine import Machine
from bastide.settings import Settings

pytestmark = pytest.mark.host

BEHAVIOURS = {
    "ready": READY,
    "stubborn": "cat > /dev/null; trap '' TERM; echo READY; while :; do sleep 60 & wait; done",
    "failing": "echo cannot go on; exit 3",
    "silent": "exec sleep 60",
    "flooding": "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done",
}


class TestContainer(MachineContract):
    spec = spec()

    @pytest.fixture
    async def make(self, host: Host, plain_bundle: None) -> AsyncIterator[Make]:
        self.digest = host.images.digest("debian-12")
        host.network.reserve(self.spec.id)
        host.disks.create(self.spec.id, self.spec.resources.disk_mb)

        async def build(behaviour: str) -> Machine:
            timeout = 1.0 if behaviour == "silent" else 20.0
            machines = host.settings.machines.model_copy(update={"boot_timeout": timeout})
            settings: Settings = host.settings.model_copy(update={"machines": machines})
            argv = script(BEHAVIOURS[behaviour])
            self.host = replace(host, settings=settings, argv=argv)
            return Container(self.spec.id, self.host)

        yield build
        await Container(self.spec.id, host).clean()
        host.disks.remove(self.spec.id)
        host.network.release(self.spec.id)

    async def again(self, machine: Machine) -> Machine:
        return Container(machine.id, self.host)
