"""Snapshots of machines, taken and brought back, one operation at a time each."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import structlog

from bastide.domain.machine import (
    MachineExit,
    MachineSpec,
    MachineState,
    MachineStatus,
    Snapshot,
    SnapshotAfter,
)
from bastide.node.disks import MIB
from bastide.node.errors import Conflict, NodeError, NoSnapshot, NotFound
from bastide.node.events import Events
from bastide.node.machines.container import Container
from bastide.node.machines.entry import Entry, without_secrets
from bastide.node.machines.fleet import Fleet
from bastide.node.machines.host import Host
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.tiers import Tiers
from bastide.node.snapshots import Draft, SnapshotRecord, open_images, shown
from bastide.node.store import Origin
from bastide.thread import in_thread

_log = structlog.get_logger(__name__)


class Captures:
    """What may be asked of the snapshots of the machines of `fleet`."""

    def __init__(self, host: Host, tiers: Tiers, fleet: Fleet, events: Events) -> None:
        self._host = host
        self._tiers = tiers
        self._fleet = fleet
        self._events = events

    def get(self, machine: str) -> Snapshot:
        """The last snapshot of a machine, also of one that was destroyed. Raises NotFound."""
        record = self._host.snapshots.get(machine)
        if record is None:
            raise NotFound(f"there is no snapshot of {machine}")
        return record.shown

    async def take(self, machine: str, after: SnapshotAfter | None) -> MachineStatus:
        """Capture memory and disk; the last snapshot is replaced once the new one is complete.

        Without `after` the machine is afterwards what it was before.

        Raises:
            NotFound, Conflict: there is none, or it does not run.
            Unsupported: this node cannot.
            BootFailed, NoSpace: it failed; the machine is as before, and so is the last snapshot.
        """
        entry = self._fleet.entry(machine)
        async with entry.lock:
            entry.check_runs()
            entry.machine.check_captures()
            was_paused = entry.machine.paused
            if after is None:
                after = SnapshotAfter.PAUSED if was_paused else SnapshotAfter.RESUME
            try:
                async with self._host.snapshots.draft(machine) as draft:
                    await self._take(entry, draft, after)
            except BaseException:
                if not was_paused:
                    await asyncio.shield(entry.machine.resume())
                raise
            if after is SnapshotAfter.STOP:
                await self._fleet.end(entry)
        return self._fleet.status(machine)

    async def _take(self, entry: Entry, draft: Draft, after: SnapshotAfter) -> None:
        boot, spec = entry.machine.boot_record, entry.record.spec
        if boot is None:  # pragma: no cover - it was checked with the lock held
            raise Conflict(f"{spec.id} does not run")
        ids, was_paused = IdRange(entry.record.first_id), entry.machine.paused
        await asyncio.to_thread(self._host.disks.check_room)
        at, began = datetime.now(UTC), time.perf_counter()
        ending = after is SnapshotAfter.STOP
        await entry.machine.capture(draft, spec, ending=ending)
        still = (time.perf_counter() - began) * 1000
        try:
            if after is SnapshotAfter.RESUME:
                await entry.machine.resume()
            await asyncio.to_thread(open_images, draft.memory)
            address = self._host.network.address(spec.id)
            told = await asyncio.to_thread(
                shown, spec.id, draft, at, spec, taken_ms=round(still, 2),
                address=str(address) if address else None,
            )  # fmt: skip
            record = SnapshotRecord(
                name=draft.path.name,
                shown=told,
                spec=spec,
                digest=entry.record.digest,
                bundle=boot.bundle or self._host.bundle().name,
                first_id=ids.first,
                boot=boot,
                tier=entry.machine.tier,
            )
            kept = time.perf_counter()
            await asyncio.to_thread(self._host.snapshots.keep, spec.id, record)
            kept = (time.perf_counter() - kept) * 1000
        except BaseException:
            if ending:
                await asyncio.shield(entry.machine.relink(spec.network))
            raise
        _log.info(
            "machine.captured",
            workspace=spec.id,
            still_ms=told.taken_ms,
            kept_ms=round(kept, 2),
            memory=told.memory_bytes,
            disk=told.disk_bytes,
        )
        if after is SnapshotAfter.PAUSED and not was_paused:
            self._events.emit(spec.id, "paused", entry.state)
        elif after is SnapshotAfter.RESUME and was_paused:
            self._events.emit(spec.id, "resumed", entry.state)

    async def bring_back(self, spec: MachineSpec) -> MachineStatus:
        """Put memory and disk of the last snapshot in the place of whatever is there now.

        The machine may run, be stopped, or have been destroyed. Limits, policy and access are
        those of `spec`.

        Raises:
            NoSnapshot: there is none.
            Conflict: its host ids or its address are somebody else's now, or its memory does not
                fit into what the machine has now; nothing was changed.
            Unsupported, NotReady, ImageUnavailable, NoSpace: it cannot be; nothing was changed.
            BootFailed: it did not come back: the machine is stopped, its disk as before.
        """
        self._fleet.check(spec)
        record = self._host.snapshots.get(spec.id)
        if record is None:
            raise NoSnapshot(
                f"there is no snapshot of {spec.id}: take one with POST /workspace/:id/snapshot"
            )
        self._tiers.make(record.tier, spec.id).check_captures()
        _check_memory(spec, record)
        self._host.bundle(record.bundle)
        await asyncio.to_thread(self._host.images.mount, record.digest)
        entry = self._fleet.find(spec.id)
        fresh = entry is None
        if entry is None:
            entry = self._fleet.enter(spec, record.digest)
        async with entry.lock:
            entry.check_there()
            try:
                await self._check_place(entry, record)
                disk = self._host.snapshots.place(record).disk
                await asyncio.to_thread(self._host.disks.stage, spec.id, disk)
                if not fresh:
                    await self._fleet.end(entry)
                async with self._fleet.boots:
                    await self._revive(entry, spec, record)
            except BaseException:
                await in_thread(self._host.disks.unstage, spec.id)
                if fresh:
                    await asyncio.shield(self._fleet.forget(entry))
                raise
        return self._fleet.status(spec.id)

    async def _check_place(self, entry: Entry, record: SnapshotRecord) -> None:
        """See that host ids and address are those of the snapshot; both are in its memory."""
        machine = record.spec.id
        if entry.record.first_id != record.first_id:
            raise Conflict(
                f"{machine} has other host ids now ({entry.record.first_id}) than its snapshot "
                f"({record.first_id}), which cannot be brought back: delete the workspace"
            )
        address = str(await asyncio.to_thread(self._host.network.reserve, machine))
        if address != record.shown.address:
            raise Conflict(
                f"{machine} has another address now ({address}) than its snapshot "
                f"({record.shown.address}), which cannot be brought back"
            )

    async def _revive(self, entry: Entry, spec: MachineSpec, record: SnapshotRecord) -> None:
        entry.passing = MachineState.STARTING
        failure: str | None = "it was broken off"
        try:
            await self._fleet.take_back(entry)
            await self._fleet.note(
                entry, spec=without_secrets(spec), exit=None, error=None, booted=True,
                former=entry.record.origin,
            )  # fmt: skip
            await asyncio.to_thread(self._host.disks.replace, spec.id)
            await entry.machine.clean()
            await self._fleet.become(entry, Origin(digest=record.digest, tier=record.tier))
            boot = await entry.machine.revive(spec, record, IdRange(record.first_id))
            failure = None
        except NodeError as error:
            failure = error.message
            raise
        finally:
            try:
                await asyncio.shield(self._fleet.settle(entry, good=failure is None))
                if failure is not None:
                    ended = MachineExit(
                        at=datetime.now(UTC),
                        requested=True,
                        reason=f"the restore failed: {failure}",
                    )
                    await asyncio.shield(self._fleet.note(entry, exit=ended, booted=False))
            finally:
                entry.passing = None
        _log.info("machine.restored", workspace=spec.id, **boot.timings)
        self._fleet.watch(entry)
        self._events.emit(spec.id, "restored", entry.state)


def _check_memory(spec: MachineSpec, record: SnapshotRecord) -> None:
    """See that what was in memory fits into what there is now; a microVM brings its own back.

    With no less than there was then it fits, whatever its files take.

    Raises:
        Conflict: it does not.
    """
    now, then = spec.resources.memory_mb, record.spec.resources.memory_mb
    held = -(-record.shown.memory_bytes // MIB)
    if record.tier == Container.tier and now < then and now < held:
        raise Conflict(
            f"the snapshot holds {held} MiB of memory and the workspace has {now} MiB now: give "
            f"it {then} MiB, as it had then, and restore it again"
        )
