"""Engines in memory for tests: normal, slow, never ready, or failing at a chosen step."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bastide.domain.instant import now
from bastide.domain.machine import (
    MEMORY_IN_USE,
    Capabilities,
    ControlAddress,
    ImageInfo,
    MachineEvent,
    MachineExit,
    MachineSpec,
    MachineState,
    MachineStats,
    MachineStatus,
    RegistryAuth,
    Resources,
    Snapshot,
    SnapshotAfter,
    SshAccess,
    TierInfo,
)
from bastide.domain.network import BlockedLog, NetworkPolicy
from bastide.engine.agent import Agent, AgentHealth, AgentRuntime, AgentSsh, AgentUnavailable
from bastide.engine.contract import (
    Engine,
    EngineError,
    EngineUnavailable,
    UnknownMachine,
    Unsupported,
)


@dataclass
class Machine:
    """One pretended machine."""

    spec: MachineSpec
    status: MachineStatus
    policy: NetworkPolicy


@dataclass
class FakeEngine(Engine):
    """Machines in a dictionary.

    `delay` seconds pass in every step; `hold` names steps that wait until `release(step)`;
    `fail[step] = n` makes a step refuse n times with `boot_failed`; `down` makes every call
    raise EngineUnavailable; `lose[step] = n` does the step and then loses the answer;
    `memory_in_use` is the MiB every machine uses, `can_resize` whether sizes change without a
    boot; `pull_failures` are codes by reference,
    `missing` are images that are made when they are pulled.
    """

    delay: float = 0.0
    down: bool = False
    can_pause: bool = True
    memory_in_use: int = 1
    can_resize: bool = True
    fail: Counter[str] = field(default_factory=Counter)
    lose: Counter[str] = field(default_factory=Counter)
    hold: dict[str, asyncio.Event] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    listeners: list[asyncio.Queue[MachineEvent | None]] = field(default_factory=list)
    refused: dict[str, BlockedLog] = field(default_factory=dict)
    can_snapshot: bool = False
    tiers: tuple[TierInfo, ...] = ()
    pulled: list[tuple[str, RegistryAuth | None]] = field(default_factory=list)
    pull_failures: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    _addresses: int = 1

    async def capabilities(self) -> Capabilities:
        await self._step("capabilities")
        return Capabilities(
            version="0",
            tier="container",
            tier_reason="a fake has only one",
            runtime="fake",
            pause=self.can_pause,
            snapshot=self.can_snapshot,
            snapshot_unavailable_reason=None if self.can_snapshot else "a fake keeps no memory",
            architecture="x86_64",
            cpus=2,
            memory_mb=4096,
            subnet="10.201.0.0/16",
            tiers=self.tiers,
        )

    async def images(self) -> list[ImageInfo]:
        await self._step("images")
        return [
            ImageInfo(
                id="debian-12",
                image="bastide/debian:12",
                label="Debian 12",
                desc="Debian 12 with Python",
                category="os",
                ready=True,
                software=("python3", "curl"),
                family="linux",
                distribution="debian",
                version="12",
            ),
            ImageInfo(
                id="broken",
                image="bastide/broken:1",
                label="Broken",
                desc="An image that could not be built",
                category="devtools",
                ready=False,
                error="its recipe failed",
            ),
        ]

    async def pull(
        self, reference: str, auth: RegistryAuth | None, tell: Callable[[str], None]
    ) -> ImageInfo:
        await self._step("pull", reference)
        self.pulled.append((reference, auth))
        self.missing.discard(reference)
        tell("fetching: 1.0 of 2.0 MiB")
        if reference in self.pull_failures:
            code = self.pull_failures[reference]
            raise EngineError(code, f"{reference} cannot be had")
        return ImageInfo(
            id="sha256-1", image=reference, label=reference, desc="", category="", ready=True
        )

    async def create(self, spec: MachineSpec) -> MachineStatus:
        await self._step("create", spec.id)
        if spec.image in self.missing:
            raise EngineError("image_unavailable", f"{spec.image} is not built")
        if spec.id not in self.machines:
            self._addresses += 1
            address = f"10.201.{self._addresses // 256}.{self._addresses % 256}"
            self.machines[spec.id] = Machine(
                spec,
                MachineStatus(
                    id=spec.id,
                    state=MachineState.STOPPED,
                    image=spec.image,
                    address=address,
                    tier="container",
                    resources=spec.resources,
                ),
                spec.network,
            )
        self._lost("create")
        return self.machines[spec.id].status

    async def start(self, spec: MachineSpec) -> MachineStatus:
        await self._step("start", spec.id)
        machine = self._machine(spec.id)
        if machine.status.state not in {MachineState.RUNNING, MachineState.PAUSED}:
            machine.spec, machine.policy = spec, spec.network
            self._move(
                machine,
                MachineState.RUNNING,
                boot_id=secrets.token_hex(8),
                resources=spec.resources,
                started_at=now(),
                exit=None,
                timings={"total": 1.0},
                control=ControlAddress(
                    address=machine.status.address or "", token=secrets.token_hex(16)
                ),
            )
        self._lost("start")
        return machine.status

    async def stop(self, machine: str, grace: float) -> MachineStatus:
        await self._step("stop", machine)
        found = self._machine(machine)
        if found.status.state is not MachineState.STOPPED:
            self.end(machine, MachineExit(at=now(), code=0, requested=True))
        self._lost("stop")
        return found.status

    async def blocked(self, machine: str) -> BlockedLog:
        await self._step("blocked", machine)
        self._machine(machine)
        return self.refused.get(machine, BlockedLog())

    async def kill(self, machine: str) -> MachineStatus:
        await self._step("kill", machine)
        found = self._machine(machine)
        if found.status.state is not MachineState.STOPPED:
            self.end(machine, MachineExit(at=now(), signal=9, requested=True))
        return found.status

    async def pause(self, machine: str) -> MachineStatus:
        return await self._freeze("pause", machine, MachineState.PAUSED)

    async def resume(self, machine: str) -> MachineStatus:
        return await self._freeze("resume", machine, MachineState.RUNNING)

    async def resize(self, machine: str, resources: Resources) -> MachineStatus:
        await self._step("resize", machine)
        found = self._up(machine)
        if not self.can_resize:
            raise Unsupported("the fake takes other sizes at its next boot")
        if resources.memory_mb < self.memory_in_use:
            raise EngineError(MEMORY_IN_USE, f"{self.memory_in_use} MiB of memory are in use")
        disk = {"disk_mb": found.spec.resources.disk_mb}
        resources = resources.model_copy(update=disk)
        found.spec = found.spec.model_copy(update={"resources": resources})
        found.status = found.status.model_copy(update={"resources": resources})
        self._lost("resize")
        return found.status

    async def delete(self, machine: str, *, keep_snapshot: bool = False) -> None:
        await self._step("delete", machine)
        self.machines.pop(machine, None)
        if not keep_snapshot:
            self.snapshots.pop(machine, None)
        self._lost("delete")

    async def apply_network(self, machine: str, policy: NetworkPolicy) -> MachineStatus:
        await self._step("apply_network", machine)
        found = self._machine(machine)
        found.policy = policy
        return found.status

    async def status(self, machine: str) -> MachineStatus:
        await self._step("status", machine)
        return self._machine(machine).status

    async def poll(self) -> list[MachineStatus]:
        await self._step("poll")
        return [machine.status for machine in self.machines.values()]

    async def stats(self, machine: str) -> MachineStats:
        await self._step("stats", machine)
        sizes = self._machine(machine).spec.resources
        return MachineStats(
            cpu_seconds=1.0,
            memory_bytes=2**20,
            memory_limit_bytes=sizes.memory_mb * 2**20,
            disk_bytes=2**20,
            disk_limit_bytes=sizes.disk_mb * 2**20,
            network_in_bytes=0,
            network_out_bytes=0,
            pids=2,
        )

    async def console(self, machine: str, limit: int) -> str:
        await self._step("console", machine)
        self._machine(machine)
        return "READY\n"[-limit:]

    async def events(self) -> AsyncIterator[MachineEvent]:
        if self.down:
            raise EngineUnavailable("the fake is down")
        queue: asyncio.Queue[MachineEvent | None] = asyncio.Queue()
        self.listeners.append(queue)
        while (event := await queue.get()) is not None:
            yield event

    async def close(self) -> None:
        self.drop_listeners()

    async def _freeze(self, step: str, machine: str, state: MachineState) -> MachineStatus:
        await self._step(step, machine)
        if not self.can_pause:
            raise Unsupported("the fake cannot pause")
        found = self._up(machine)
        if found.status.state is not state:
            self._move(found, state)
        self._lost(step)
        return found.status

    def _up(self, machine: str) -> Machine:
        found = self._machine(machine)
        if found.status.state not in {MachineState.RUNNING, MachineState.PAUSED}:
            raise EngineError("conflict", f"{machine} does not run: start it first")
        return found

    async def snapshot(self, machine: str, after: SnapshotAfter | None) -> MachineStatus:
        await self._step("snapshot", machine)
        found = self._machine(machine)
        if found.status.state not in {MachineState.RUNNING, MachineState.PAUSED}:
            raise EngineError("conflict", f"{machine} does not run")
        taken = Snapshot(
            id=f"{machine}/{secrets.token_hex(4)}",
            at=now(),
            image=found.spec.image,
            address=found.status.address,
            memory_bytes=2**20,
            disk_bytes=2**20,
            taken_ms=1.0,
        )
        self.snapshots[machine] = taken
        states = {
            None: found.status.state,
            SnapshotAfter.RESUME: MachineState.RUNNING,
            SnapshotAfter.PAUSED: MachineState.PAUSED,
            SnapshotAfter.STOP: MachineState.STOPPED,
        }
        self._move(found, states[after], snapshot=taken)
        self._lost("snapshot")
        return found.status

    async def restore(self, spec: MachineSpec) -> MachineStatus:
        await self._step("restore", spec.id)
        taken = self.snapshots.get(spec.id)
        if taken is None:
            raise EngineError("no_snapshot", f"there is no snapshot of {spec.id}")
        if spec.id not in self.machines:
            await self.create(spec)
        found = self._machine(spec.id)
        boot = {"boot_id": secrets.token_hex(8), "started_at": now(), "address": taken.address}
        self._move(found, MachineState.RUNNING, snapshot=taken, exit=None, **boot)
        self._lost("restore")
        return found.status

    async def last_snapshot(self, machine: str) -> Snapshot | None:
        await self._step("last_snapshot", machine)
        return self.snapshots.get(machine)

    def release(self, step: str) -> None:
        """Let a held step go on."""
        self.hold.pop(step).set()

    def drop_listeners(self) -> None:
        """End every stream of events, as a dying node does."""
        for queue in self.listeners:
            queue.put_nowait(None)
        self.listeners.clear()

    def end(self, machine: str, how: MachineExit | None) -> None:
        """Let a machine end, as its main command or the host may do."""
        self._move(self.machines[machine], MachineState.STOPPED, exit=how, control=None)

    def _move(self, machine: Machine, state: MachineState, **changes: object) -> None:
        machine.status = machine.status.model_copy(update={"state": state, **changes})
        event = MachineEvent(
            id=machine.spec.id,
            type=state.value,
            at=now(),
            state=state,
            exit=machine.status.exit,
        )
        for queue in self.listeners:
            queue.put_nowait(event)

    def _machine(self, machine: str) -> Machine:
        if machine not in self.machines:
            raise UnknownMachine(f"there is no machine {machine}")
        return self.machines[machine]

    async def _step(self, step: str, machine: str = "") -> None:
        self.calls.append((step, machine))
        if self.down:
            raise EngineUnavailable("the fake is down")
        if step in self.hold:
            await self.hold[step].wait()
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.fail[step] > 0:
            self.fail[step] -= 1
            raise EngineError("boot_failed", f"the fake fails at {step}")

    def _lost(self, step: str) -> None:
        if self.lose[step] > 0:
            self.lose[step] -= 1
            raise EngineUnavailable("the answer was lost")


def _set(event: asyncio.Event) -> asyncio.Event:
    event.set()
    return event


@dataclass
class FakeAgent(Agent):
    """Agents of a FakeEngine; `down` makes them silent. `runtime` is what each was told last.

    `pieces` are what an archive of any of them holds; `flow` lets the pieces after the first go
    on; `refusal` is raised by transfers, `broken` ends them in the middle. `unpacked` is what was
    put where, `asked` what was to be archived.
    """

    engine: FakeEngine
    down: bool = False
    pieces: list[bytes] = field(default_factory=lambda: [b"files " * 1000, b"more"])
    flow: asyncio.Event = field(default_factory=lambda: _set(asyncio.Event()))
    refusal: EngineError | None = None
    broken: bool = False
    asked: list[tuple[str, list[str], list[str]]] = field(default_factory=list)
    unpacked: list[tuple[str, str, bytes]] = field(default_factory=list)
    policies: list[NetworkPolicy] = field(default_factory=list)
    runtime: dict[str, tuple[bool, str | None]] = field(default_factory=dict)
    ssh: dict[str, SshAccess] = field(default_factory=dict)

    async def health(self, control: ControlAddress) -> AgentHealth:
        status = self._find(control)
        return AgentHealth(boot_id=status.boot_id or "", uptime=1.0)

    async def set_runtime(
        self, control: ControlAddress, *, enabled: bool, token: str | None
    ) -> AgentRuntime:
        status = self._find(control)
        self.runtime[status.id] = (enabled, token)
        return AgentRuntime(enabled=enabled, running=enabled)

    async def set_ssh(self, control: ControlAddress, access: SshAccess) -> AgentSsh:
        status = self._find(control)
        self.ssh[status.id] = access
        return AgentSsh(enabled=access.enabled, running=access.enabled)

    @asynccontextmanager
    async def archive(
        self, control: ControlAddress, paths: Sequence[str], excludes: Sequence[str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        status = self._find(control)
        self.asked.append((status.id, list(paths), list(excludes)))
        self.policies.append(self.engine.machines[status.id].policy)
        if self.refusal is not None:
            raise self.refusal
        yield self._flowing()

    async def _flowing(self) -> AsyncIterator[bytes]:
        yield self.pieces[0]
        await self.flow.wait()
        if self.broken:
            raise AgentUnavailable("the fake agent broke off")
        for piece in self.pieces[1:]:
            yield piece

    async def unpack(
        self, control: ControlAddress, dest: str, content: AsyncIterator[bytes]
    ) -> int:
        status = self._find(control)
        self.policies.append(self.engine.machines[status.id].policy)
        received = b"".join([piece async for piece in content])
        await self.flow.wait()
        if self.refusal is not None:
            raise self.refusal
        self.unpacked.append((status.id, dest, received))
        return 7

    async def close(self) -> None:
        return

    def _find(self, control: ControlAddress) -> MachineStatus:
        for machine in self.engine.machines.values():
            if machine.status.control == control and not self.down:
                return machine.status
        raise AgentUnavailable("the fake agent is silent")
