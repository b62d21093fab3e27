"""Operations on machines: idempotent, in turn, and undone when they fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.host.node.conftest import opened_node, script, spec
from tests.host.node.inside import inside, shell
from tests.host.node.waiting import until

from bastide.domain.machine import MachineEvent, MachineState
from bastide.domain.network import NetworkPolicy
from bastide.node.errors import BootFailed, Conflict, ImageUnavailable, Invalid, NotFound, NotReady
from bastide.node.machines.host import Host
from bastide.node.machines.runc import Runc, Version
from bastide.node.network.names import host_end
from bastide.node.node import Node

pytestmark = pytest.mark.host

MACHINE = spec().id


async def test_create_may_be_repeated(plain_node: Node) -> None:
    """Create twice is one machine with one address and the same disk."""
    first = await plain_node.fleet.create(spec())
    inode = plain_node.host.disks.path(MACHINE).stat().st_ino
    assert first.state is MachineState.STOPPED
    assert first.address is not None
    assert await plain_node.fleet.create(spec()) == first
    assert plain_node.host.disks.path(MACHINE).stat().st_ino == inode


async def test_create_goes_on_where_it_was_interrupted(plain_node: Node) -> None:
    """A record whose disk was never made gets one when create is repeated."""
    await plain_node.fleet.create(spec())
    plain_node.host.disks.remove(MACHINE)
    await plain_node.fleet.create(spec())
    assert plain_node.host.disks.exists(MACHINE)


async def test_start_of_a_running_machine_changes_nothing(plain_node: Node) -> None:
    """A second start answers with the same boot."""
    await plain_node.fleet.create(spec())
    first = await plain_node.power.start(spec())
    assert first.state is MachineState.RUNNING
    assert first.control is not None
    assert await plain_node.power.start(spec()) == first


async def test_thirty_at_once(plain_node: Node) -> None:
    """Thirty creations and starts at the same time all succeed, each with ids of its own."""

    async def one(number: int) -> str | None:
        await plain_node.fleet.create(spec(number))
        return (await plain_node.power.start(spec(number))).address

    addresses = await asyncio.gather(*(one(number) for number in range(30)))
    assert len(set(addresses)) == 30
    assert {status.state for status in plain_node.fleet.all()} == {MachineState.RUNNING}


async def test_stop_and_start_keep_the_address_and_tell_the_exit(plain_node: Node) -> None:
    """A stopped machine says how it ended; started again it has its old address."""
    await plain_node.fleet.create(spec())
    started = await plain_node.power.start(spec())
    stopped = await plain_node.power.stop(MACHINE, 10)
    assert stopped.state is MachineState.STOPPED
    assert stopped.exit is not None
    assert (stopped.exit.code, stopped.exit.requested) == (0, True)
    assert stopped.control is None
    again = await plain_node.power.start(spec())
    assert again.address == started.address
    assert again.boot_id != started.boot_id
    assert again.exit is None


async def test_operations_on_a_stopped_machine(plain_node: Node) -> None:
    """Stop and kill have nothing to do; pause and resume are conflicts."""
    await plain_node.fleet.create(spec())
    assert (await plain_node.power.stop(MACHINE, 1)).state is MachineState.STOPPED
    assert (await plain_node.power.kill(MACHINE)).state is MachineState.STOPPED
    for operation in (plain_node.power.pause, plain_node.power.resume):
        with pytest.raises(Conflict):
            await operation(MACHINE)


async def test_a_stopped_machine_uses_its_disk(plain_node: Node) -> None:
    """What is on it counts the same whether it runs or not, and nothing else does."""
    await plain_node.fleet.create(spec())
    await plain_node.power.start(spec())
    line = "head -c 20M /dev/urandom > /root/file; sync /root/file"
    assert (await shell(plain_node.host, MACHINE, line)).code == 0
    running = await plain_node.fleet.stats(MACHINE)
    await plain_node.power.stop(MACHINE, 5)
    stopped = await plain_node.fleet.stats(MACHINE)
    assert 20 << 20 < stopped.disk_bytes < 30 << 20
    assert abs(stopped.disk_bytes - running.disk_bytes) < 1 << 20
    assert stopped.disk_limit_bytes == running.disk_limit_bytes
    assert (stopped.cpu_seconds, stopped.memory_bytes, stopped.pids) == (0, 0, 0)


async def test_unknown_machines(plain_node: Node) -> None:
    """What names no machine is not found; deleting it is nothing to do."""
    await plain_node.fleet.delete("ws_ffffffff")
    with pytest.raises(NotFound):
        await plain_node.power.start(spec())
    with pytest.raises(NotFound):
        plain_node.fleet.status(MACHINE)


async def test_bad_documents_change_nothing(plain_node: Node) -> None:
    """Unknown image, impossible policy, oversized environment: refused before anything is made."""
    with pytest.raises(Invalid, match=r"images are: .*debian-12"):
        await plain_node.fleet.create(spec(image="plan-9"))
    with pytest.raises(Invalid):
        await plain_node.fleet.create(spec(network=NetworkPolicy(ingress=("everyone",))))
    with pytest.raises(Invalid, match="1 MiB"):
        await plain_node.fleet.create(spec(env={"A": "x" * 2**20}))
    assert plain_node.fleet.known == set()


async def test_the_image_of_a_disk_cannot_change(plain_node: Node) -> None:
    """A disk fits on its own image only."""
    await plain_node.fleet.create(spec())
    with pytest.raises(Conflict, match="debian-12"):
        await plain_node.power.start(spec(image="bastide/other:1"))


async def test_an_image_that_vanished_is_told(plain_node: Node) -> None:
    """With the image's file gone, start fails with a reason and the machine stays deletable."""
    await plain_node.fleet.create(spec())
    plain_node.host.images.unmount()
    for path in plain_node.host.images.directory.glob("*.erofs"):
        path.unlink()
    with pytest.raises(ImageUnavailable):
        await plain_node.power.start(spec())
    assert plain_node.fleet.status(MACHINE).state is MachineState.FAILED


async def test_kill_ends_a_start_that_waits(plain_node: Node) -> None:
    """A machine that never becomes ready can be killed long before the time limit."""
    silent = replace(plain_node.host, argv=script("exec sleep 60"))
    async with opened_node(silent) as node:
        await node.fleet.create(spec(2))
        start = asyncio.create_task(node.power.start(spec(2)))
        record = node.host.machines_dir / spec(2).id / "boot.json"
        await until(record.exists)
        async with asyncio.timeout(10):
            killed = await node.power.kill(spec(2).id)
            with pytest.raises(BootFailed):
                await start
        assert killed.state is MachineState.STOPPED


async def test_delete_during_stop(plain_node: Node) -> None:
    """Delete does not wait out the grace of a stop."""
    stubborn = "cat > /dev/null; trap '' TERM; echo READY; while :; do sleep 60 & wait; done"
    async with opened_node(replace(plain_node.host, argv=script(stubborn))) as node:
        await node.fleet.create(spec(3))
        await node.power.start(spec(3))
        stop = asyncio.create_task(node.power.stop(spec(3).id, 300))
        await until(lambda: node.fleet.status(spec(3).id).state is MachineState.STOPPING)
        async with asyncio.timeout(10):
            await node.fleet.delete(spec(3).id)
            await asyncio.wait((stop,))
        assert node.fleet.known == set()


async def test_an_end_by_itself_is_noticed(plain_node: Node) -> None:
    """A machine whose process 1 ends is stopped, with its code, and an event says so."""
    brief = "cat > /dev/null; echo READY; sleep 0.2; exit 42"
    async with opened_node(replace(plain_node.host, argv=script(brief))) as node:
        events = node.events.listen(30)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await node.fleet.create(spec(4))
        await node.power.start(spec(4))
        seen: list[MachineEvent] = []
        async with asyncio.timeout(20):
            while not seen or seen[-1].type != "exited":
                event = await waiting
                assert event is not None
                seen.append(event)
                waiting = asyncio.ensure_future(anext(events))
        waiting.cancel()
        assert [event.type for event in seen] == ["created", "started", "exited"]
        ended = node.fleet.status(spec(4).id)
        assert ended.state is MachineState.STOPPED
        assert ended.exit is not None
        assert (ended.exit.code, ended.exit.oom, ended.exit.requested) == (42, False, False)


async def test_policy_is_kept_for_the_next_boot(plain_node: Node) -> None:
    """A policy put in force is in the record, running or not."""
    await plain_node.fleet.create(spec())
    policy = NetworkPolicy(public_access=True, ingress_ports=(8080,))
    await plain_node.fleet.apply_network(MACHINE, policy)
    assert plain_node.fleet.running() == {}
    await plain_node.power.start(spec(network=policy))
    assert plain_node.fleet.running() == {MACHINE: policy}


@pytest.mark.parametrize("version", [None, Version("1.1.5", (1, 1, 5))])
async def test_an_old_or_missing_runtime_boots_nothing(
    plain_node: Node, version: Version | None
) -> None:
    """Below the floor nothing is booted, and capabilities say why."""
    await plain_node.fleet.create(spec())
    plain_node.host.runc.version = version
    with pytest.raises(NotReady, match=r"1\.3\.6"):
        await plain_node.power.start(spec())
    assert "runc 1.3.6" not in plain_node.capabilities().runtime
    assert plain_node.capabilities().runtime.startswith(("missing", "runc 1.1.5 (too old"))


async def test_the_runtime_of_this_node_is_safe(host: Host) -> None:
    """What was prepared starts and is at or above the floor."""
    runc = Runc(host.runc.program, host.settings.run_dir / "other")
    await runc.find()
    runc.check()
    assert runc.version is not None
    assert runc.version.safe


async def test_a_stray_disk_is_kept_and_a_draft_is_not(plain_node: Node) -> None:
    """A sweep removes half-made disks, and never a whole one whose record is lost."""
    disks = plain_node.host.disks
    disks.create("ws_0000dead", 64)
    (disks.directory / ".ws_0000beef.ext4").touch()
    swept = await plain_node.sweep()
    assert (swept.drafts, swept.strays) == (1, 1)
    assert disks.exists("ws_0000dead")
    disks.remove("ws_0000dead")


async def test_a_sweep_spares_what_runs(plain_node: Node) -> None:
    """Sweeping while machines run and start disturbs none of them."""
    await plain_node.fleet.create(spec(1))
    await plain_node.fleet.create(spec(2))
    await plain_node.power.start(spec(1))
    start = asyncio.create_task(plain_node.power.start(spec(2)))
    for _ in range(5):
        assert (await plain_node.sweep()).kinds == {}
    await start
    assert {status.state for status in plain_node.fleet.all()} == {MachineState.RUNNING}


async def test_a_lost_link_comes_back(plain_node: Node) -> None:
    """A running machine whose link vanished from the host gets a new one by the next sweep."""
    await plain_node.fleet.create(spec())
    await plain_node.power.start(spec())
    await plain_node.host.network.detach(MACHINE)
    look = ("ip", "-brief", "link", "show", "eth0")
    assert (await inside(plain_node.host, MACHINE, *look)).code != 0
    assert (await plain_node.sweep()).network.dark == (MACHINE,)
    assert (await inside(plain_node.host, MACHINE, *look)).code == 0
    assert (await plain_node.sweep()).network.dark == ()


async def test_a_link_that_came_meanwhile_stays(plain_node: Node) -> None:
    """A machine that was still without a link when a sweep looked, amid its boot, keeps its own."""
    await plain_node.fleet.create(spec())
    address = (await plain_node.power.start(spec())).address
    assert address is not None
    number = Path("/sys/class/net") / host_end(IPv4Address(address)) / "ifindex"
    before = number.read_text()
    await plain_node.fleet.relink(MACHINE)
    assert number.read_text() == before


async def test_the_real_agent_boots(node: Node) -> None:
    """The agent of the bundle becomes ready as process 1 and ends with 0 when asked."""
    await node.fleet.create(spec())
    started = await node.power.start(spec())
    assert started.control is not None
    assert (started.control.address, started.control.port) == (started.address, 9989)
    stopped = await node.power.stop(MACHINE, 10)
    assert stopped.exit is not None
    assert stopped.exit.code == 0


async def test_the_main_commands_exit_ends_the_machine(node: Node) -> None:
    """With a main command, the machine ends with that command's code."""
    once = spec(cmd=("/bin/sh", "-c", "exit 7"))
    await node.fleet.create(once)
    listening = node.events.listen(30)
    waiting = asyncio.ensure_future(anext(listening))
    await asyncio.sleep(0)
    await node.power.start(once)
    async with asyncio.timeout(20):
        while (event := await waiting) is None or event.type != "exited":
            waiting = asyncio.ensure_future(anext(listening))
    assert event.exit is not None
    assert event.exit.code == 7


async def test_a_broken_record_does_not_stop_the_node(plain_node: Node, tmp_path: Path) -> None:
    """A record that cannot be read is left alone, and the others are taken up."""
    await plain_node.fleet.create(spec())
    broken = plain_node.host.settings.state_dir / "machines" / "ws_0000bad0"
    broken.mkdir()
    (broken / "machine.json").write_text("{")
    other = Node(plain_node.host)
    assert await other.fleet.load() == 0
    assert other.fleet.known == {MACHINE}
    (broken / "machine.json").unlink()
    broken.rmdir()
