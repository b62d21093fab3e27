"""The microVM tier: a machine with a kernel of its own, on QEMU in a jail."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import uuid
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from bastide.domain.machine import (
    AGENT_ARGV,
    CONTROL_PORT,
    RUNTIME_PORT,
    MachineSpec,
    MachineStats,
    Resources,
)
from bastide.domain.network import NetworkPolicy
from bastide.node import cgroups, kernel
from bastide.node.agent import tell
from bastide.node.errors import BootFailed, Conflict, Unsupported
from bastide.node.machines import renewal
from bastide.node.machines.boot import Clock, shown
from bastide.node.machines.directory import BootDirectory
from bastide.node.machines.host import Host
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.machine import Machine
from bastide.node.machines.microvm import launch, memory
from bastide.node.machines.microvm import warm as warm_guests
from bastide.node.machines.microvm.emulator import Emulator
from bastide.node.machines.microvm.ground import Shape
from bastide.node.machines.microvm.guest import going_on
from bastide.node.machines.microvm.launch import Launch
from bastide.node.machines.microvm.qmp import Qmp, QmpError
from bastide.node.process import Ended, Process
from bastide.node.snapshots import Draft, SnapshotRecord
from bastide.node.store import BootRecord, read, write

MIB = 1024 * 1024
_SHAPE = "shape.json"
_END_TIMEOUT = 10.0
_ADOPT_TIMEOUT = 30.0
_AGENT_TIMEOUT, _RENEW_TIMEOUT = 20.0, 60.0
"""Seconds for an agent's answer; an emulated one on a busy host takes its time."""

_STILL = {"paused", "postmigrate", "finish-migrate", "save-vm"}
_log = structlog.get_logger(__name__)


class MicroVm(Machine):
    """One machine on QEMU.

    The order of a boot: disk, open files and sockets, tap, runc `create` (the emulator waits),
    connections to its sockets, runc `start`, the guest's HELLO, boot document, READY.
    """

    tier = "microvm"

    def __init__(self, machine: str, host: Host) -> None:
        super().__init__(machine)
        self._host = host
        self._directory = BootDirectory(host.machines_dir / machine)
        self._emulator = Emulator(machine, self._directory)
        self._coming_back = False

    async def boot(self, spec: MachineSpec, digest: str, ids: IdRange) -> BootRecord:
        """See `Machine.boot`."""
        shape = self._host.microvm.shape(spec.resources)
        launching = self._launch(spec, digest, ids, self._host.bundle(), shape)
        key, warm = self._warm_key(launching), self._host.microvm.warm
        if key is None:
            return await self._begin(launching)
        saved = await asyncio.to_thread(warm.find, key)
        if saved is not None:
            try:
                return await self._begin(replace(launching, warm=True, incoming=True), key, saved)
            except warm_guests.NotLoaded as error:
                _log.warning("machine.warm_start_failed", workspace=self.id, reason=error.message)
                await asyncio.to_thread(warm.forget, key)
        return await self._begin(replace(launching, warm=warm.wanted(key)), key)

    def _warm_key(self, launching: Launch) -> str | None:
        """By what a saved guest is known that this one may go on from; None: by nothing."""
        if self._host.argv != AGENT_ARGV:
            return None
        ground = self._host.microvm
        return ground.warm.key(launching.shape, launching.digest, launching.bundle.name)

    async def _begin(
        self, launching: Launch, key: str | None = None, saved: Path | None = None
    ) -> BootRecord:
        """Start it; from the guest that is `saved`, or as one that is to be saved as `key`."""
        await self._anew()
        clock = Clock()
        try:
            async with asyncio.timeout(self._host.settings.machines.boot_timeout):
                return await self._run(launching, clock, key, saved)
        except TimeoutError:
            await self.clean()
            if key is not None and saved is not None:
                await asyncio.to_thread(self._host.microvm.warm.forget, key)
            raise BootFailed(
                f"the machine was not ready within {self._host.settings.machines.boot_timeout:g} s",
                output=shown(self._emulator.console.data),
            ) from None
        except warm_guests.NotLoaded:
            await asyncio.shield(self.clean())
            raise
        except BootFailed as error:
            if self.process is not None:
                self.process.send(signal.SIGKILL)
            told = await asyncio.shield(self._emulator.explained(error))
            await asyncio.shield(self.clean())
            raise told from None
        except BaseException:
            await asyncio.shield(self.clean())
            raise

    def _launch(
        self, spec: MachineSpec, digest: str, ids: IdRange, bundle: Path, shape: Shape,
        *, incoming: bool = False,
    ) -> Launch:  # fmt: skip
        return Launch(
            host=self._host,
            directory=self._directory,
            spec=spec,
            digest=digest,
            ids=ids,
            bundle=bundle,
            shape=shape,
            places=self._host.microvm.places(shape),
            incoming=incoming,
        )

    async def _anew(self) -> None:
        """Remove what an earlier boot may have left."""
        await self.clean()
        self._emulator = Emulator(self.id, self._directory)

    async def _run(
        self, launching: Launch, clock: Clock, key: str | None, saved: Path | None
    ) -> BootRecord:
        record = await self._create(launching, clock)
        port = self._emulator.talk(ready=False)
        with clock.stage("start"):
            await self._host.runc.start(self.id)
            if saved is None:
                await port.until(lambda said: said.hello)
            qmp = await self._emulator.reach()
        if saved is not None:
            with clock.stage("memory"):
                await self._load(qmp, saved)
        elif key is not None and launching.warm:
            with clock.stage("save"):
                await self._host.microvm.warm.save(key, qmp)
        with clock.stage("agent"):
            await port.send(launching.document(record))
            try:
                await port.until(lambda said: said.ready)
            except BootFailed as error:
                if saved is not None and not error.details.get("output"):
                    raise warm_guests.NotLoaded(error.message) from error
                raise
            await self._go_on(record)
        return self._ready(record, clock)

    async def _load(self, qmp: Qmp, saved: Path) -> None:
        """Let the guest go on from a saved one.

        Raises:
            NotLoaded: it does not fit, or has gone since it was found.
        """
        try:
            await memory.load(qmp, saved)
            await qmp.run("cont")
        except (BootFailed, QmpError) as error:
            raise warm_guests.NotLoaded(f"a saved guest does not go on: {error}") from error

    async def _create(self, launching: Launch, clock: Clock) -> BootRecord:
        """Have the emulator, not begun yet, and hold on to it."""
        with self._emulator.hear() as output:
            pid = await launching.create(clock, output.fileno())
        self.process = Process.watch(pid)
        if self.process is None:
            raise BootFailed("the emulator ended while the machine was made")
        record = BootRecord(
            boot_id=uuid.uuid4().hex,
            token=secrets.token_hex(32),
            pid=pid,
            started=self.process.started,
            at=datetime.now(UTC),
            bundle=launching.bundle.name,
        )
        self._directory.record(record)
        write(self._directory.path / _SHAPE, launching.shape)
        return record

    def _ready(self, record: BootRecord, clock: Clock) -> BootRecord:
        """Write down that this boot has come up."""
        record = record.model_copy(update={"ready": True, "timings": clock.timings()})
        self._directory.keep_console(self._emulator.console.data)
        self._directory.record(record)
        self.boot_record = record
        return record

    async def adopt(self) -> BootRecord | None:
        """See `Machine.adopt`. A boot that never became ready is cleaned away."""
        record = self._directory.recorded()
        if record is not None and record.ready:
            self.process = Process.watch(record.pid, record.started)
            if self.process is not None and await self._reconnect():
                self.boot_record = record
                return record
        await self.clean()
        return None

    async def _reconnect(self) -> bool:
        """Take up the sockets of an emulator that runs; whether it answers."""
        self._emulator = Emulator(self.id, self._directory, self._directory.console())
        try:
            self._emulator.talk(ready=True)
            qmp = await self._emulator.reach(_ADOPT_TIMEOUT)
            state = await qmp.run("query-status")
        except (OSError, QmpError) as error:
            _log.warning("machine.emulator_silent", machine=self.id, reason=str(error))
            return False
        self.paused = state.get("status") in _STILL
        return True

    async def stop(self, grace: float) -> None:
        """See `Machine.stop`."""
        process, port = self.process, self._emulator.port
        if process is None or not process.alive:
            return
        if self.paused:
            await self._thaw()
        if port is not None and await port.ask_to_stop():
            with suppress(TimeoutError):
                await process.wait(grace)
                return
            if port.said.exit is not None:  # nothing runs, and its kernel puts the disk away
                with suppress(TimeoutError):
                    await process.wait(_END_TIMEOUT)
                    return
        await self.kill()

    async def kill(self) -> None:
        """See `Machine.kill`."""
        process = self.process
        if process is None:
            return
        process.send(signal.SIGKILL)
        try:
            await process.wait(_END_TIMEOUT)
        except TimeoutError:
            raise Conflict(f"{self.id} does not end: its process hangs in the kernel") from None
        self.paused = False

    async def pause(self) -> None:
        """See `Machine.pause`."""
        if not self.paused:
            await self._emulator.qmp.run("stop")
            self.paused = True

    async def _go_on(self, record: BootRecord) -> None:
        """Tell the agent the time, which stood still with its guest, and fresh randomness."""
        address = self._host.network.address(self.id)
        try:
            await tell(str(address), record.token, "wake", going_on(), seconds=_AGENT_TIMEOUT)
        except BootFailed as error:  # it may be busy, or was ended; its guest goes on
            _log.info("machine.agent_silent", workspace=self.id, reason=error.message)

    async def resume(self) -> None:
        """See `Machine.resume`."""
        if self.paused:
            await self._thaw()
            if self.boot_record is not None:
                await self._go_on(self.boot_record)

    async def _thaw(self) -> None:
        process = self.process
        try:
            await self._emulator.qmp.run("cont")
        except QmpError:
            if process is None or process.alive:
                raise
        self.paused = False

    async def resize(self, resources: Resources) -> None:
        """See `Machine.resize`. A guest is as large as it was when it was started."""
        raise Unsupported(
            f"a microVM takes other sizes at its next boot, {resources.cpus:g} cores and "
            f"{resources.memory_mb} MiB among them: stop and start it"
        )

    def check_captures(self) -> None:
        """See `Machine.check_captures`."""
        if self._host.microvm.lacking:
            raise Unsupported(f"microVMs are not possible here: {self._host.microvm.lacking}")

    async def relink(self, policy: NetworkPolicy) -> None:
        """See `Machine.relink`. The emulator holds on to the tap, so that is filled again."""
        record = self.boot_record
        if record is None or self._host.network.linked(self.id):
            return
        try:
            descriptor = kernel.descriptor_of(record.pid, launch.TAP_AT)
        except OSError as error:
            raise Conflict(f"{self.id} has lost its network: {error.strerror}") from error
        try:
            await self._host.network.attach_tap(self.id, descriptor, policy)
        finally:
            os.close(descriptor)

    async def capture(self, draft: Draft, spec: MachineSpec, *, ending: bool) -> None:
        """See `Machine.capture`. A guest that stands still acknowledges nothing."""
        del spec
        was_paused = self.paused
        shape = read(Shape, self._directory.path / _SHAPE)
        if shape is None:
            raise Unsupported(f"it is not known how {self.id} was started: stop and start it")
        await self.pause()
        try:
            await memory.save(self._emulator.qmp, draft.memory)
            write(draft.memory / _SHAPE, shape)
            await asyncio.to_thread(self._host.disks.copy, self.id, draft.disk)
            self._coming_back = ending  # with the connections it has now
        except BaseException:
            if not was_paused:
                await asyncio.shield(self.resume())
            raise

    async def revive(self, spec: MachineSpec, snapshot: SnapshotRecord, ids: IdRange) -> BootRecord:
        """See `Machine.revive`. Its sizes are those of the snapshot until the next boot."""
        images = self._host.snapshots.place(snapshot).memory
        shape = read(Shape, images / _SHAPE)
        if shape is None:
            raise BootFailed("the snapshot does not say what its guest needs")
        bundle = self._host.bundle(snapshot.bundle)
        # until the agent has its new tokens, nobody else shall reach it with the former ones
        shut = spec.model_copy(update={"network": renewal.shut(spec.network)})
        launching = self._launch(shut, snapshot.digest, ids, bundle, shape, incoming=True)
        await self._anew()
        clock = Clock()
        try:
            record = await self._create(launching, clock)
            self._emulator.talk(ready=True)
            with clock.stage("start"):
                await self._host.runc.start(self.id)
                qmp = await self._emulator.reach()
            with clock.stage("memory"):
                await memory.load(qmp, images)
                await qmp.run("cont")
            with clock.stage("agent"):
                await renewal.renew(
                    self._host, spec, snapshot, record, going_on(), seconds=_RENEW_TIMEOUT
                )
                await self._host.network.apply(self.id, spec.network)
            return self._ready(record, clock)
        except BaseException:
            await asyncio.shield(self.clean())
            raise

    def stats(self, spec: MachineSpec) -> MachineStats:
        """See `Machine.stats`.

        Memory is what stands behind the guest's own, disk what the file takes: only the guest
        knows what it would call free. Tasks are those of the emulator.
        """
        try:
            usage = self._host.cgroups.usage(self.id)
            shape = read(Shape, self._directory.path / _SHAPE)
            size = (shape or spec.resources).memory_mb * MIB
            used = memory.ram_in_use(self.process.pid if self.process else 0, size)
            blocks = self._host.disks.path(self.id).stat().st_blocks
        except OSError:
            raise Conflict(f"{self.id} does not run: start it to see what it uses") from None
        received, sent = self._host.network.counters(self.id)
        disk = spec.resources.disk_mb * MIB
        return MachineStats(
            cpu_seconds=usage.cpu_seconds,
            memory_bytes=used,
            memory_limit_bytes=size,
            disk_bytes=min(blocks * 512, disk),
            disk_limit_bytes=disk,
            network_in_bytes=received,
            network_out_bytes=sent,
            pids=usage.pids,
        )

    def oom_kills(self) -> int:
        """See `Machine.oom_kills`."""
        port = self._emulator.port
        told = port.said.exit if port is not None else None
        return (told.oom_kills if told else 0) + self._host.cgroups.oom_kills(self.id)

    async def outcome(self, ended: Ended) -> Ended:
        """See `Machine.outcome`. What process 1 ended with is known from the guest alone."""
        return await self._emulator.outcome(ended)

    def console(self, limit: int) -> bytes:
        """See `Machine.console`."""
        return self._emulator.console.data[-limit:] if limit > 0 else b""

    async def let_go(self) -> None:
        """See `Machine.let_go`."""
        await super().let_go()
        await self._emulator.close()

    async def clean(self) -> None:
        """See `Machine.clean`."""
        process, self.process, self.boot_record = self.process, None, None
        if process:
            process.send(signal.SIGKILL)
            with suppress(TimeoutError):
                await process.wait(_END_TIMEOUT)
            # What comes back goes on with its connections, but its agent keeps none.
            ports = (RUNTIME_PORT, CONTROL_PORT) if self._coming_back else ()
            await self._host.network.cut(self.id, ports)
        self.paused = self._coming_back = False
        await self._emulator.close()
        await self._host.network.detach(self.id)
        await self._host.runc.delete(self.id)
        if not await asyncio.to_thread(self._remove):
            _log.warning("machine.leftovers", machine=self.id, path=str(self._directory.path))

    def _remove(self) -> bool:
        cgroups.kill_all(self._host.cgroups, self.id)
        self._host.cgroups.remove(self.id)
        return self._directory.remove()
