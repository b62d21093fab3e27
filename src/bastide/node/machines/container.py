"""The container tier: a machine as a runc container over image and disk."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from bastide.domain.machine import AGENT_ENV, MachineSpec, MachineStats, Resources
from bastide.domain.network import NetworkPolicy
from bastide.node import cgroups, disks, kernel
from bastide.node.agent import tell
from bastide.node.errors import BootFailed, Conflict, MemoryInUse
from bastide.node.machines import oci, vfork
from bastide.node.machines.boot import Clock, Output, boot_document, send, shown
from bastide.node.machines.cores import listed, parsed
from bastide.node.machines.dimensions import Dimensions
from bastide.node.machines.directory import BootDirectory
from bastide.node.machines.dump import Dump
from bastide.node.machines.farewell import Farewell
from bastide.node.machines.gate import Gate
from bastide.node.machines.host import Host
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.machine import Machine
from bastide.node.machines.revival import Revival
from bastide.node.machines.rootfs import RootFs
from bastide.node.process import Ended, Process
from bastide.node.snapshots import Draft, SnapshotRecord
from bastide.node.store import BootRecord

MIB = 1024 * 1024
_END_TIMEOUT = 10.0
"""Seconds a process may take to go after SIGKILL; longer means it hangs in the kernel."""

_ALMOST = 0.8
"""Share of a limit from which on a refused update is put down to what is in use."""

_MOMENTS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, *(0.05,) * 100)
"""Seconds a machine runs between attempts to catch it with no program about to start another;
the later ones outlast the 0.1 s in which it may have used up its share of the processor."""

_log = structlog.get_logger(__name__)


class Container(Machine):
    """One machine on runc.

    The order of a boot: disk, root, runc `create` (its first process waits), network into its
    namespace, runc `start`, boot document on the standard input, READY.
    """

    tier = "container"

    def __init__(self, machine: str, host: Host) -> None:
        super().__init__(machine)
        self._host = host
        self._directory = BootDirectory(host.machines_dir / machine)
        self._rootfs = RootFs(self._directory.path)
        self._dimensions = Dimensions(self._directory.path)
        self._console = b""
        self._farewell = Farewell()
        self._resting = False
        self._bundle = ""

    async def boot(self, spec: MachineSpec, digest: str, ids: IdRange) -> BootRecord:
        """See `Machine.boot`."""
        self._host.runc.check()
        bundle = self._host.bundle()
        await self.clean()  # what an earlier boot may have left
        clock = Clock()
        try:
            await asyncio.to_thread(self._prepare, spec, digest, ids, bundle, clock)
            async with asyncio.timeout(self._host.settings.machines.boot_timeout):
                return await self._run(spec, clock)
        except TimeoutError:
            await self.clean()
            raise BootFailed(
                f"the machine was not ready within {self._host.settings.machines.boot_timeout:g} s",
                output=shown(self._console),
            ) from None
        except BaseException:
            await asyncio.shield(self.clean())
            raise

    def _prepare(
        self,
        spec: MachineSpec,
        digest: str,
        ids: IdRange,
        bundle: Path,
        clock: Clock,
        *,
        gate: Gate | None = None,
    ) -> None:
        """Everything that is files and mounts. Blocks for some milliseconds."""
        host, directory = self._host, self._directory
        self._bundle = bundle.name
        directory.make()
        with clock.stage("disk"):
            host.disks.bring(self.id)
            host.disks.grow(self.id, spec.resources.disk_mb)
            host.disks.mount(self.id, directory.disk)
        with clock.stage("rootfs"):
            self._rootfs.assemble(host.images.mount(digest), directory.disk, ids)
            if gate is not None:
                self._rootfs.lay(self._dimensions.binds, ids)
            host.disks.keep_room(directory.disk)
        address = host.network.address(self.id)
        directory.names(
            spec.hostname,
            str(address) if address else None,
            host.network.nameservers,
        )
        cores = host.cores.take(self.id, spec.resources.cpus)
        self._dimensions.write(spec.resources.memory_mb * MIB, cores)
        container = oci.Container(
            hostname=spec.hostname,
            argv=host.argv,
            env=AGENT_ENV,
            rootfs=self._rootfs.merged,
            bundle=bundle,
            resolv_conf=directory.resolv_conf,
            hosts=directory.hosts,
            hostname_file=directory.hostname,
            ids=ids,
            resources=spec.resources,
            cgroup=host.cgroups.path(self.id),
            limits_swap=host.cgroups.limits_swap,
            criu=host.criu.config,
            cores=listed(cores) if host.cgroups.limits_cores and cores != host.cores.all else "",
            files=self._dimensions.binds,
        )
        configuration = oci.configuration(container)
        if gate is not None:
            gate.open()
            configuration["hooks"] = gate.hooks()
        directory.configure(configuration)

    async def _run(self, spec: MachineSpec, clock: Clock) -> BootRecord:
        boot_id, token = uuid.uuid4().hex, secrets.token_hex(32)
        document = boot_document(spec, boot_id, token)
        stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
        output_read, output_write = os.pipe2(os.O_CLOEXEC)
        self._farewell.listen(os.dup(output_read))
        output = Output(output_read)
        telling = asyncio.create_task(send(stdin_write, document))
        try:
            try:
                with clock.stage("create"):
                    pid = await self._host.runc.create(
                        self.id, self._directory.path, stdin_read, output_write
                    )
            finally:
                os.close(stdin_read)
                os.close(output_write)
            record = self._watch(pid, boot_id, token)
            with clock.stage("network"):
                try:
                    await self._host.network.attach(self.id, pid, spec.network)
                except Conflict as error:  # killed meanwhile: its namespace went with it
                    raise BootFailed(f"the machine ended while it was made: {error}") from None
            with clock.stage("start"):
                await self._host.runc.start(self.id)
            with clock.stage("agent"):
                await output.until_ready()
        finally:
            self._console = output.data
            output.close()
            telling.cancel()
            await asyncio.wait((telling,))
        self._directory.keep_console(output.data)
        return self._ready(record, clock)

    def _ready(self, record: BootRecord, clock: Clock) -> BootRecord:
        """Write down that this boot has come up."""
        record = record.model_copy(update={"ready": True, "timings": clock.timings()})
        self._directory.record(record)
        self.boot_record = record
        return record

    def _watch(self, pid: int, boot_id: str, token: str) -> BootRecord:
        """Hold on to the first process, and write down that this boot began."""
        self.process = Process.watch(pid)
        if self.process is None:
            raise BootFailed("the first process ended while the machine was made")
        record = BootRecord(
            boot_id=boot_id,
            token=token,
            pid=pid,
            started=self.process.started,
            at=datetime.now(UTC),
            bundle=self._bundle,
        )
        self._directory.record(record)
        return record

    async def adopt(self) -> BootRecord | None:
        """See `Machine.adopt`. A boot that never became ready is cleaned away."""
        record = self._directory.recorded()
        if record is not None and record.ready:
            process = Process.watch(record.pid, record.started)
            status = await self._host.runc.status(self.id) if process else None
            if process and status in {"running", "paused"}:
                with suppress(OSError):  # an earlier node may have ended while it copied the disk
                    await asyncio.to_thread(kernel.thaw, self._directory.disk)
                self.process, self.boot_record = process, record
                self.paused = status == "paused"
                with suppress(OSError, ValueError):
                    self._host.cores.hold(self.id, parsed(self._host.cgroups.cores(self.id)))
                self._console = self._directory.console()
                return record
            if process:
                process.forget()
        await self.clean()
        return None

    async def stop(self, grace: float) -> None:
        """See `Machine.stop`."""
        process = self.process
        if process is None or not process.alive:
            return
        await self.resume()
        process.send(signal.SIGTERM)
        try:
            await process.wait(grace)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """See `Machine.kill`."""
        process = self.process
        if process is None:
            return
        process.send(signal.SIGKILL)
        self._resting = False
        await self.resume()  # on cgroup v1 a frozen process cannot die
        try:
            await process.wait(_END_TIMEOUT)
        except TimeoutError:
            raise Conflict(f"{self.id} does not end: its process hangs in the kernel") from None

    async def pause(self) -> None:
        """See `Machine.pause`."""
        if not self.paused:
            try:
                await self._host.cgroups.freeze(self.id)
            except OSError as error:
                raise Conflict(f"{self.id} cannot be frozen: {error}") from error
            self.paused = True

    async def resume(self) -> None:
        """See `Machine.resume`."""
        self._thaw()
        if self._resting:
            self._resting = False
            await self._tell("wake")

    def _thaw(self) -> None:
        if self.paused:
            with suppress(FileNotFoundError):  # it may have ended meanwhile
                self._host.cgroups.thaw(self.id)
            self.paused = False

    async def resize(self, resources: Resources) -> None:
        """See `Machine.resize`."""
        memory = resources.memory_mb * MIB
        usage = await asyncio.to_thread(self._host.cgroups.usage, self.id)
        if usage.memory_bytes > memory:
            raise self._in_use(resources, usage.memory_bytes)
        quota, period = oci.cpu_share(resources.cpus)
        had = self._host.cores.of(self.id)
        cores = self._host.cores.take(self.id, resources.cpus)
        try:
            await self._host.runc.update(
                self.id,
                memory=memory,
                swap=self._host.cgroups.limits_swap,
                quota=quota,
                period=period,
                cores=listed(cores) if cores != had and self._host.cgroups.limits_cores else "",
            )
        except BootFailed as error:
            self._host.cores.leave(self.id)
            self._host.cores.hold(self.id, had)
            usage = await asyncio.to_thread(self._host.cgroups.usage, self.id)
            if usage.memory_bytes > memory * _ALMOST:  # the kernel could not free enough
                raise self._in_use(resources, usage.memory_bytes) from error
            raise
        with suppress(OSError):
            age = self.process.age if self.process else 0.0
            await asyncio.to_thread(self._dimensions.write, memory, cores, usage, age)

    def _in_use(self, resources: Resources, used: int) -> MemoryInUse:
        return MemoryInUse(
            f"{-(-used // MIB)} MiB of memory are in use, which is more than "
            f"{resources.memory_mb} MiB: free some inside, ask for more, or stop it first",
            used_bytes=used,
        )

    async def relink(self, policy: NetworkPolicy) -> None:
        """See `Machine.relink`. A sweep may have looked while the link was still to be made."""
        if self.boot_record is not None and not self._host.network.linked(self.id):
            await self._host.network.attach(self.id, self.boot_record.pid, policy)

    def check_captures(self) -> None:
        """See `Machine.check_captures`."""
        self._host.criu.check()

    async def capture(self, draft: Draft, spec: MachineSpec, *, ending: bool) -> None:
        """See `Machine.capture`."""
        self._host.criu.check()
        was_paused, clock = self.paused, Clock()
        with clock.stage("rest"):
            await self.resume()  # for a moment: the agent must let go of what cannot be captured
            self._resting = True
            await self._tell("rest", ending=ending)
        try:
            with clock.stage("still"):
                await self._stand_still()
            if ending:
                await self._host.network.detach(self.id)
            await Dump(self._host, self.id, self._directory.disk, draft, clock).run()
        except BaseException:
            if ending and self.boot_record is not None:
                pid = self.boot_record.pid
                await asyncio.shield(self._host.network.attach(self.id, pid, spec.network))
            if not was_paused:
                await asyncio.shield(self.resume())
            raise
        _log.info("machine.dumped", machine=self.id, **clock.timings())

    async def _stand_still(self) -> None:
        """Freeze it at a moment at which CRIU can stop every process.

        Raises:
            Conflict: there was none; it is frozen all the same.
        """
        for moment in _MOMENTS:
            await self.pause()
            processes = self._host.cgroups.processes(self.id)
            if not await asyncio.to_thread(vfork.waiting, processes):
                return
            self._thaw()
            await asyncio.sleep(moment)
        await self.pause()
        raise Conflict(
            "the memory cannot be captured: a program waits for one it has started (vfork) that "
            "does not go on; stop it"
        )

    async def revive(self, spec: MachineSpec, snapshot: SnapshotRecord, ids: IdRange) -> BootRecord:
        """See `Machine.revive`."""
        self._host.runc.check()
        self._host.criu.check()
        bundle = self._host.bundle(snapshot.bundle)
        await self.clean()
        clock, gate = Clock(), Gate(self._directory.path)
        try:
            await asyncio.to_thread(
                self._prepare, spec, snapshot.digest, ids, bundle, clock, gate=gate
            )
            revival = Revival(self._host, spec, snapshot, self._directory.path, gate, clock)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self._farewell.listen(reading)
            try:
                record = await revival.run(
                    lambda pid: self._watch(pid, uuid.uuid4().hex, secrets.token_hex(32)), writing
                )
            finally:
                os.close(writing)
            return self._ready(record, clock)
        except BaseException:
            await asyncio.shield(self.clean())
            raise
        finally:
            gate.close()

    async def _tell(self, what: str, **document: object) -> None:
        """Say something to the agent that it may as well miss."""
        record, address = self.boot_record, self._host.network.address(self.id)
        if record is not None and address is not None:
            try:
                await tell(str(address), record.token, what, document)
            except BootFailed as error:
                _log.info("machine.agent_silent", machine=self.id, reason=error.message)

    def refresh(self, spec: MachineSpec) -> None:
        """See `Machine.refresh`."""
        process = self.process
        if process is None or self.paused:
            return
        with suppress(OSError):  # it ended just now, or the host is full: the next time
            usage = self._host.cgroups.usage(self.id)
            memory, cores = spec.resources.memory_mb * MIB, self._host.cores.of(self.id)
            self._dimensions.refresh(memory, cores, usage, process.age)

    @property
    def disk(self) -> Path | None:
        """See `Machine.disk`."""
        return self._directory.disk

    def hold_room(self, *, hold: bool) -> None:
        """See `Machine.hold_room`."""
        change = self._host.disks.hold_room if hold else self._host.disks.give_room
        change(self._directory.disk)

    def stats(self, spec: MachineSpec) -> MachineStats:
        """See `Machine.stats`."""
        try:
            usage = self._host.cgroups.usage(self.id)
            used = disks.usage(self._directory.disk)
        except OSError:
            raise Conflict(f"{self.id} does not run: start it to see what it uses") from None
        received, sent = self._host.network.counters(self.id)
        return MachineStats(
            cpu_seconds=usage.cpu_seconds,
            memory_bytes=usage.memory_bytes,
            memory_limit_bytes=spec.resources.memory_mb * MIB,
            disk_bytes=used,
            disk_limit_bytes=spec.resources.disk_mb * MIB,
            network_in_bytes=received,
            network_out_bytes=sent,
            pids=usage.pids,
        )

    def oom_kills(self) -> int:
        """See `Machine.oom_kills`."""
        return self._host.cgroups.oom_kills(self.id)

    async def outcome(self, ended: Ended) -> Ended:
        """See `Machine.outcome`. After a restart of the node nobody hears it, nor the code."""
        return self._farewell.of(ended)

    async def let_go(self) -> None:
        """See `Machine.let_go`."""
        await super().let_go()
        self._farewell.close()

    def console(self, limit: int) -> bytes:
        """See `Machine.console`."""
        return self._console[-limit:] if limit > 0 else b""

    async def clean(self) -> None:
        """See `Machine.clean`."""
        process, self.process, self.boot_record = self.process, None, None
        self._resting = False
        if process:
            process.send(signal.SIGKILL)
            await self.resume()  # on cgroup v1 a frozen process cannot die
            with suppress(TimeoutError):
                await process.wait(_END_TIMEOUT)
        self.paused = False
        self._farewell.close()
        await self._host.network.detach(self.id)
        await self._host.runc.delete(self.id)
        self._host.cores.leave(self.id)
        if not await asyncio.to_thread(self._remove):
            _log.warning("machine.leftovers", machine=self.id, path=str(self._directory.path))

    def _remove(self) -> bool:
        cgroups.kill_all(self._host.cgroups, self.id)
        self._host.cgroups.remove(self.id)
        if not self._directory.path.exists():
            return True
        self._rootfs.dismantle()
        self._host.disks.unmount(self._directory.disk)
        return self._directory.remove()
