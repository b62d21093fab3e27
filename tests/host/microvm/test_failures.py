"""What becomes of a microVM that fails: it is told, nothing is left, and the next start works."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest
from tests.host.microvm.inside import ACCESS, POLICY, TOKEN, shell
from tests.host.node.conftest import opened_node, spec
from tests.host.node.waiting import until

from bastide.domain.machine import Driver, MachineExit, MachineState
from bastide.node.errors import BootFailed, NotReady
from bastide.node.machines.host import Host
from bastide.node.machines.microvm.emulator import PANICKED
from bastide.node.node import Node

pytestmark = pytest.mark.host

SPEC = spec(network=POLICY, runtime=ACCESS, driver=Driver.MICROVM)
MACHINE = SPEC.id
FILL = ("/bin/sh", "-c", "exec tail /dev/zero")
"""Reads a line without end into memory."""


async def ended(node: Node) -> MachineExit:
    """How the machine ended by itself."""
    await until(lambda: node.fleet.status(MACHINE).state is MachineState.STOPPED)
    found = node.fleet.status(MACHINE).exit
    assert found is not None
    assert not found.requested
    return found


async def test_guests_and_emulators_that_fail(ground: Host) -> None:
    """Memory filled: the guest goes on. A panic, a killed emulator, a damaged disk: told."""
    async with opened_node(ground) as node:
        await node.fleet.create(SPEC)
        await node.power.start(SPEC)
        async with httpx.AsyncClient(trust_env=False, timeout=90) as http:
            url = f"http://{ground.network.address(MACHINE)}:9990/exec"
            headers = {"authorization": f"Bearer {TOKEN}"}
            filled = await http.post(url, json={"cmd": list(FILL)}, headers=headers)
        assert "137" in filled.text or "-9" in filled.text or "SIGKILL" in filled.text
        assert await shell(ground, MACHINE, "echo still here") == "still here"
        stats = await node.fleet.stats(MACHINE)
        assert stats.memory_bytes <= stats.memory_limit_bytes

        panicking = asyncio.ensure_future(
            shell(ground, MACHINE, "sync; echo c > /proc/sysrq-trigger")
        )
        panicked = await ended(node)
        await asyncio.gather(panicking, return_exceptions=True)
        assert panicked.code == PANICKED
        assert panicked.reason is not None
        assert "sysrq" in panicked.reason
        assert "Kernel panic" in node.fleet.console(MACHINE, 65536).decode(errors="replace")

        await node.power.start(SPEC)
        process = node.fleet.entry(MACHINE).machine.process
        assert process is not None
        process.send(signal.SIGKILL)
        assert (await ended(node)).signal == signal.SIGKILL

        disk = ground.disks.path(MACHINE)
        with disk.open("r+b") as file:
            file.seek(4096)  # the description of the whole stays, what it describes goes
            file.write(b"\xff" * 65536)
        with pytest.raises(BootFailed, match="damaged"):
            await node.power.start(SPEC)
        assert node.fleet.status(MACHINE).state is MachineState.FAILED


async def test_without_a_kernel_nothing_starts(ground: Host) -> None:
    """A missing guest kernel is a refusal that says what to do, and leaves nothing half-made."""
    async with opened_node(ground) as node:
        await node.fleet.create(SPEC)
        ground.microvm.kernel = None
        with pytest.raises(NotReady, match="bastide prepare"):
            await node.power.start(SPEC)
        capabilities = node.capabilities()
        assert capabilities.tier == "container"
        assert "kernel is not prepared" in str(capabilities.tier_of(Driver.MICROVM).reason)
        assert not capabilities.tier_of(Driver.MICROVM).ready
