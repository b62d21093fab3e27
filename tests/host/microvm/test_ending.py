"""The end of a microVM: its programs are told, and the signal of its command is."""

from __future__ import annotations

import pytest
from tests.host.microvm.inside import ACCESS, POLICY, shell
from tests.host.node.conftest import opened_node, spec
from tests.host.node.waiting import until

from bastide.domain.machine import Driver, MachineState
from bastide.node.machines.host import Host

pytestmark = pytest.mark.host

DAEMON = (
    "trap 'sleep 0.1; echo orderly > /root/told; exit 0' TERM; echo > /root/up; "
    "while :; do sleep 0.1; done"
)
BEGIN = (
    f'setsid nohup sh -c "{DAEMON}" > /dev/null 2>&1 < /dev/null & '
    "until [ -e /root/up ]; do sleep 0.1; done; rm /root/up"
)
COMMAND = "until [ -e /root/go ]; do sleep 0.1; done; rm /root/go; kill -9 $$"


async def test_daemons_are_told_and_a_signal_is_told(ground: Host) -> None:
    """Both at a stop and when its command is killed, whose code alone would not say so."""
    machine = spec(
        network=POLICY, runtime=ACCESS, driver=Driver.MICROVM, cmd=("/bin/sh", "-c", COMMAND)
    )
    async with opened_node(ground) as node:
        await node.fleet.create(machine)
        await node.power.start(machine)
        await shell(ground, machine, BEGIN)
        await shell(ground, machine, "(sleep 0.5; echo > /root/go) > /dev/null 2>&1 &")
        await until(lambda: node.fleet.status(machine.id).state is MachineState.STOPPED)
        ended = node.fleet.status(machine.id).exit
        assert ended is not None
        assert (ended.code, ended.signal, ended.requested) == (137, 9, False)
        await node.power.start(machine)
        assert await shell(ground, machine, "cat /root/told; rm /root/told") == "orderly"
        await shell(ground, machine, BEGIN)
        stopped = await node.power.stop(machine.id, 30)
        assert stopped.exit is not None
        assert (stopped.exit.code, stopped.exit.signal) == (143, 15)
        await node.power.start(machine)
        assert await shell(ground, machine, "cat /root/told") == "orderly"
