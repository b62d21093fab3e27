"""The end of a machine with the real agent: what its programs are told, and how it is told."""

from __future__ import annotations

import pytest
from tests.host.node.conftest import spec
from tests.host.node.inside import shell
from tests.host.node.waiting import until

from bastide.domain.machine import MachineState
from bastide.node.node import Node

pytestmark = pytest.mark.host

MACHINE = spec().id
DAEMON = """
cat > /root/d.sh << 'END'
trap 'sleep 0.3; echo orderly > /root/told; exit 0' TERM
echo > /root/up
while :; do sleep 0.1; done
END
setsid nohup sh /root/d.sh > /dev/null 2>&1 < /dev/null &
until [ -e /root/up ]; do sleep 0.05; done
"""
STUBBORN = """
exec > /dev/null 2>&1
setsid sh -c 'trap "" TERM HUP; echo > /root/stubborn; while :; do sleep 0.1; done' &
until [ -e /root/stubborn ]; do sleep 0.05; done
"""


async def started(node: Node, *lines: str, cmd: tuple[str, ...] = ()) -> None:
    """A machine that runs `cmd`, in which these lines were run."""
    machine = spec(cmd=cmd)
    await node.fleet.create(machine)
    await node.power.start(machine)
    for line in lines:
        assert (await shell(node.host, MACHINE, line)).code == 0


async def test_a_daemon_puts_its_files_in_order(node: Node) -> None:
    """A stop waits for what made itself a daemon; what it wrote is there at the next start."""
    await started(node, DAEMON)
    stopped = await node.power.stop(MACHINE, 10)
    assert stopped.exit is not None
    assert (stopped.exit.code, stopped.exit.signal) == (0, None)
    await node.power.start(spec(cmd=()))
    assert (await shell(node.host, MACHINE, "cat /root/told")).output == "orderly"


async def test_a_paused_machine_is_stopped_orderly(node: Node) -> None:
    """It goes on for its end."""
    await started(node, DAEMON)
    await node.power.pause(MACHINE)
    assert (await node.power.stop(MACHINE, 10)).state is MachineState.STOPPED
    await node.power.start(spec(cmd=()))
    assert (await shell(node.host, MACHINE, "cat /root/told")).output == "orderly"


async def test_a_daemon_that_does_not_heed_holds_nothing_up(node: Node) -> None:
    """It is killed inside while the node still waits, and the others were told before."""
    await started(node, DAEMON, STUBBORN)
    stopped = await node.power.stop(MACHINE, 30)
    assert stopped.exit is not None
    assert (stopped.exit.code, stopped.exit.signal) == (0, None)
    await node.power.start(spec(cmd=()))
    assert (await shell(node.host, MACHINE, "cat /root/told")).output == "orderly"


async def test_a_stop_without_grace_is_firm(node: Node) -> None:
    """The node's own figure is the last word."""
    await started(node, STUBBORN)
    stopped = await node.power.stop(MACHINE, 0.2)
    assert stopped.exit is not None
    assert (stopped.exit.signal, stopped.exit.requested) == (9, True)


@pytest.mark.parametrize(
    ("command", "code", "number"),
    [
        ("kill -9 $$", 137, 9),
        ("kill -SEGV $$", 139, 11),
        ("exit 137", 137, None),
        ("exit 3", 3, None),
    ],
)
async def test_a_signal_is_told_from_a_code(
    node: Node, command: str, code: int, number: int | None
) -> None:
    """A command that a signal ended says which; one that ends with the same code says none."""
    await started(node, cmd=("sh", "-c", f"until [ -e /root/go ]; do sleep 0.05; done; {command}"))
    await told_to_go(node)
    ended = node.fleet.status(MACHINE).exit
    assert ended is not None
    assert (ended.code, ended.signal, ended.requested) == (code, number, False)


async def test_a_restored_command_tells_its_signal(node: Node) -> None:
    """The machine that came back from a snapshot has a pipe of its own to say it."""
    await started(node, cmd=("sh", "-c", "until [ -e /root/go ]; do sleep 0.05; done; kill -9 $$"))
    await node.captures.take(MACHINE, None)
    await node.captures.bring_back(spec(cmd=()))
    await told_to_go(node)
    ended = node.fleet.status(MACHINE).exit
    assert ended is not None
    assert (ended.code, ended.signal) == (137, 9)


async def test_a_liar_harms_only_itself(node: Node) -> None:
    """What a workspace prints in the agent's stead is bounded and must fit the code."""
    await started(node, "(yes 'BASTIDE SIGNAL 9' | timeout 1 cat > /proc/1/fd/1) 2> /dev/null; :")
    stopped = await node.power.stop(MACHINE, 10)
    assert stopped.exit is not None
    assert (stopped.exit.code, stopped.exit.signal) == (0, None)


async def told_to_go(node: Node) -> None:
    """Let the command end, and wait until the node knows."""
    # in the background: this shell has ended before the machine does
    go = "(sleep 0.3; echo > /root/go) > /dev/null 2>&1 &"
    assert (await shell(node.host, MACHINE, go)).code == 0
    await until(lambda: node.fleet.status(MACHINE).state is MachineState.STOPPED)
