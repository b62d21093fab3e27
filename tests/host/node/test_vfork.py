"""Snapshots of machines in which a program is just starting another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.host.node.conftest import spec
from tests.host.node.inside import shell
from tests.host.node.waiting import until

from bastide.domain.machine import MachineState, SnapshotAfter
from bastide.node.errors import Conflict, NotFound
from bastide.node.machines import container
from bastide.node.machines.vfork import waiting
from bastide.node.node import Node

pytestmark = pytest.mark.host

MACHINE = spec().id
PROGRAM = """
import ctypes, os, sys, time
call = 220 if os.uname().machine == "aarch64" else 56  # clone(CLONE_VFORK | SIGCHLD)
while True:
    if ctypes.CDLL(None).syscall(call, 0x4000 | 17, 0, 0, 0, 0) == 0:
        time.sleep(float(sys.argv[1]))
        os._exit(0)
    os.wait()
    open("/root/turns", "a").write(".")
    time.sleep(0.2)
"""
TURNS = "cat /root/turns 2> /dev/null | wc -c"
"""How often it has done so; it may not have come round once."""


def programs(node: Node) -> Iterator[int]:
    """The processes of the program: the agent, too, waits for a moment when it starts one."""
    for process in node.host.cgroups.processes(MACHINE):
        with suppress(OSError):  # it ended meanwhile
            if PROGRAM.encode() in Path(f"/proc/{process}/cmdline").read_bytes():
                yield process


async def amid(node: Node, seconds: float) -> None:
    """A machine in which one waits for another that takes this long to begin."""
    machine = spec(cmd=("/.bastide/bin/python3.11", "-c", PROGRAM, str(seconds)))
    await node.fleet.create(machine)
    await node.power.start(machine)
    await until(lambda: waiting(programs(node)))


async def test_a_program_that_starts_others_is_caught_between_two(node: Node) -> None:
    """It is frozen at another moment, and goes on in the machine that is brought back."""
    await amid(node, 0.5)
    taken = await node.captures.take(MACHINE, SnapshotAfter.STOP)
    assert taken.state is MachineState.STOPPED
    await node.captures.bring_back(spec(cmd=()))
    turns = int((await shell(node.host, MACHINE, TURNS)).output)
    line = f"until [ $({TURNS}) -gt {turns} ]; do sleep 0.05; done"
    assert (await shell(node.host, MACHINE, line)).code == 0


@pytest.mark.parametrize("state", [MachineState.RUNNING, MachineState.PAUSED])
async def test_one_that_never_begins_is_told(
    node: Node, state: MachineState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No snapshot and what to do; the machine is what it was, and can be stopped."""
    monkeypatch.setattr(container, "_MOMENTS", (0.001,) * 3)
    await amid(node, 3600)
    if state is MachineState.PAUSED:
        await node.power.pause(MACHINE)
    with pytest.raises(Conflict, match=r"\(vfork\) that does not go on; stop it"):
        await node.captures.take(MACHINE, None)
    assert node.fleet.status(MACHINE).state is state
    with pytest.raises(NotFound):
        node.captures.get(MACHINE)
    assert (await node.power.stop(MACHINE, 0)).state is MachineState.STOPPED
