"""The machines of this node: which there are, what is kept of each, and how each ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from bastide.domain.machine import (
    ControlAddress,
    MachineExit,
    MachineSpec,
    MachineState,
    MachineStats,
    MachineStatus,
)
from bastide.domain.network import BlockedLog, NetworkPolicy
from bastide.node.errors import Conflict, Invalid, NotFound
from bastide.node.events import Events
from bastide.node.machines.boot import MOST_DOCUMENT, boot_document
from bastide.node.machines.container import Container
from bastide.node.machines.entry import Entry, without_secrets
from bastide.node.machines.host import Host
from bastide.node.machines.idrange import IdRange, free_range
from bastide.node.machines.tiers import Tiers
from bastide.node.process import Ended, Process
from bastide.node.store import MachineRecord, Origin, Store

_log = structlog.get_logger(__name__)


class Fleet:
    """All machines of this node; `Power` starts and ends them, `Captures` knows their snapshots.

    Every operation is idempotent by id and undoes its own work when it fails. Operations on one
    machine take turns; a deletion first ends what a longer one is waiting for. Nothing here is
    needed for a machine to go on: another node process can take up where this one ends.
    """

    def __init__(self, host: Host, tiers: Tiers, events: Events) -> None:
        self._host = host
        self._tiers = tiers
        self._events = events
        self._store = Store(host.settings.state_dir)
        self._entries: dict[str, Entry] = {}
        self.boots = asyncio.Semaphore(host.settings.machines.boot_concurrency)
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> int:
        """Read the records and take up what still runs; how many machines that is."""
        for record in self._store.all():
            machine = self._tiers.make(record.tier, record.spec.id)
            self._entries[record.spec.id] = Entry(record, machine)
        found = await asyncio.gather(*(self._adopt(entry) for entry in self._entries.values()))
        return sum(found)

    async def _adopt(self, entry: Entry) -> bool:
        async with entry.lock:
            boot = await entry.machine.adopt()
            await self.settle(entry, good=boot is not None)
            if boot is not None:
                self.watch(entry)
            elif entry.record.booted:  # it ended, or the host did, and nobody saw how
                unseen = MachineExit(at=datetime.now(UTC))
                await self.note(entry, exit=unseen, booted=False)
            return boot is not None

    @property
    def known(self) -> set[str]:
        """Ids of every machine with a record."""
        return set(self._entries)

    def running(self) -> dict[str, NetworkPolicy]:
        """Machines that run or are about to, with their policies."""
        return {
            machine: entry.record.spec.network
            for machine, entry in self._entries.items()
            if entry.lock.locked() or entry.machine.boot_record is not None
        }

    def up(self) -> list[Entry]:
        """Those that run."""
        return [entry for entry in self._entries.values() if entry.machine.boot_record]

    async def refresh(self) -> None:
        """Bring what programs inside read of their machine's use up to date."""
        running = self.up()

        def tell() -> None:
            for entry in running:
                if not entry.lock.locked():  # its sizes may just be changing: these are the old
                    entry.machine.refresh(entry.record.spec)

        await asyncio.to_thread(tell)

    async def clean(self, machine: str) -> bool:
        """Remove what a boot of `machine`, known or not, left behind; False when it runs."""
        entry = self._entries.get(machine)
        if entry is None:
            # whatever tier it was of: both keep what they have on the host in the same places
            await self._tiers.make(Container.tier, machine).clean()
            return True
        async with entry.lock:
            if entry.machine.boot_record is not None:
                return False
            await entry.machine.clean()
            return True

    async def relink(self, machine: str) -> None:
        """Give a running machine that has lost its network link a new one."""
        entry = self.entry(machine)
        async with entry.lock:
            if entry.machine.boot_record is not None:
                await entry.machine.relink(entry.record.spec.network)

    async def create(self, spec: MachineSpec) -> MachineStatus:
        """Reserve an address and make a disk; does not boot. Repeating goes on where it ended.

        Raises:
            Conflict: it was made from another image.
            Invalid, ImageUnavailable, NoSpace: the document or the host does not allow it.
        """
        self.check(spec)
        known = self._entries.get(spec.id)
        if known is not None:
            async with known.lock:
                if not known.gone:
                    known.check_image(spec)
                    await self.provide(known.record)
                    return self.status(spec.id)
        return await self._create(spec)

    async def _create(self, spec: MachineSpec) -> MachineStatus:
        digest = self._host.images.digest(spec.image)
        entry = self.enter(spec, digest)
        record = entry.record
        async with entry.lock:
            try:
                await asyncio.to_thread(self._store.save, record)
                await self.provide(record)
            except BaseException:
                await asyncio.shield(self.forget(entry))
                raise
        self._events.emit(spec.id, "created", entry.state)
        return self.status(spec.id)

    def enter(self, spec: MachineSpec, digest: str) -> Entry:
        """Know a machine from here on, so that nobody else is given the same host ids.

        A machine that was destroyed gets those back that its snapshot holds for it.

        Raises:
            Conflict: they are somebody else's now.
        """
        taken = self.ranges()
        snapshot = self._host.snapshots.get(spec.id)
        if snapshot is None:
            ranges = [*taken, *self._host.snapshots.ranges()]
            ids = free_range(self._host.settings.machines.id_base, ranges)
        elif IdRange(snapshot.first_id) in taken:
            raise Conflict(
                f"the host ids {snapshot.first_id} of the snapshot of {spec.id} are in use by "
                "another workspace: delete that one, or this one with its snapshot"
            )
        else:
            ids = IdRange(snapshot.first_id)
        tier = self._tiers.choose(spec.driver)
        record = MachineRecord(
            spec=without_secrets(spec), digest=digest, first_id=ids.first, tier=tier
        )
        entry = self._entries[spec.id] = Entry(record, self._tiers.make(tier, spec.id))
        return entry

    def digests(self) -> set[str]:
        """The images that the disks of all machines belong to, also those put aside."""
        records = [entry.record for entry in self._entries.values()]
        aside = {record.former.digest for record in records if record.former is not None}
        return aside | {record.digest for record in records}

    def ranges(self) -> list[IdRange]:
        """The host ids of all machines."""
        return [IdRange(entry.record.first_id) for entry in self._entries.values()]

    def find(self, machine: str) -> Entry | None:
        """One machine, if it is known."""
        return self._entries.get(machine)

    async def provide(self, record: MachineRecord) -> None:
        """Have address and disk of a machine."""
        machine, size = record.spec.id, record.spec.resources.disk_mb
        await asyncio.to_thread(self._host.network.reserve, machine)
        await asyncio.to_thread(self._host.disks.create, machine, size)

    async def become(self, entry: Entry, origin: Origin) -> None:
        """Let a clean machine be one with a disk of `origin` from now on."""
        if entry.record.tier != origin.tier:
            entry.machine = self._tiers.make(origin.tier, entry.record.spec.id)
        if entry.record.origin != origin:
            await self.note(entry, tier=origin.tier, digest=origin.digest)

    async def settle(self, entry: Entry, *, good: bool) -> None:
        """End the replacement of a disk, if one is under way: keep it when it was `good`.

        Else the former disk comes back, and before it what it belongs to: whichever of the two
        is written last, a disk of a guest is never taken for one of the host's.
        """
        machine, former = entry.record.spec.id, entry.record.former
        if not good and former and await asyncio.to_thread(self._host.disks.replaced, machine):
            await self.become(entry, former)
        await asyncio.to_thread(self._host.disks.settle, machine, good=good)
        # not worth a write of its own: without a disk put aside it says nothing
        entry.record = entry.record.model_copy(update={"former": None})

    async def take_back(self, entry: Entry) -> None:
        """Put a disk back whose return failed, with the host full perhaps, before any boot."""
        if entry.record.former is not None:
            await self.settle(entry, good=False)

    async def delete(self, machine: str, *, keep_snapshot: bool = False) -> None:
        """Remove machine, disk, address and rules, in any state; unknown is fine.

        With `keep_snapshot` the last snapshot stays, and with it host ids and address.
        """
        entry = self._entries.get(machine)
        if entry is None:
            if not keep_snapshot:
                await asyncio.to_thread(self._host.snapshots.remove, machine)
                await asyncio.to_thread(self._host.network.release, machine)
            return
        entry.interrupt()
        async with entry.lock:
            if entry.gone:
                return
            entry.passing = MachineState.STOPPING
            await entry.machine.clean()
            if not keep_snapshot:
                await asyncio.to_thread(self._host.snapshots.remove, machine)
            await self.forget(entry)
        self._events.emit(machine, "deleted", MachineState.ABSENT)

    async def forget(self, entry: Entry) -> None:
        """Remove what is kept of a machine that does not run.

        The record goes last: until then a repeated deletion finds what is left.
        """
        machine = entry.record.spec.id
        await asyncio.to_thread(self._host.disks.remove, machine)
        if self._host.snapshots.get(machine) is None:
            await asyncio.to_thread(self._host.network.release, machine)
        await asyncio.to_thread(self._store.remove, machine)
        entry.gone = True
        if self._entries.get(machine) is entry:
            del self._entries[machine]

    async def apply_network(self, machine: str, policy: NetworkPolicy) -> MachineStatus:
        """Put a policy in force now and at every later boot. Raises Invalid."""
        self._host.network.check(policy)
        entry = self.entry(machine)
        async with entry.lock:
            entry.check_there()
            if entry.machine.boot_record is not None:
                await self._host.network.apply(machine, policy)
            spec = entry.record.spec.model_copy(update={"network": policy})
            await self.note(entry, spec=spec)
        return self.status(machine)

    def status(self, machine: str) -> MachineStatus:
        """What it is doing now. Raises NotFound."""
        entry = self.entry(machine)
        boot = entry.machine.boot_record
        address = self._host.network.address(machine)
        snapshot = self._host.snapshots.get(machine)
        control = None
        if boot is not None and address is not None:
            control = ControlAddress(address=str(address), token=boot.token)
        return MachineStatus(
            id=machine,
            state=entry.state,
            image=entry.record.spec.image,
            address=str(address) if address else None,
            boot_id=boot.boot_id if boot else None,
            started_at=boot.at if boot else None,
            tier=entry.machine.tier,
            exit=entry.record.exit,
            error=entry.record.error or (entry.trouble if boot else None),
            control=control,
            resources=entry.record.spec.resources,
            snapshot=snapshot.shown if snapshot else None,
            timings=boot.timings if boot else {},
        )

    def all(self) -> list[MachineStatus]:
        """What every machine is doing now."""
        return [self.status(machine) for machine in sorted(self._entries)]

    async def stats(self, machine: str) -> MachineStats:
        """Use of a machine; of one that does not run, its disk's alone. Raises NotFound."""
        entry = self.entry(machine)
        entry.check_there()
        if entry.machine.boot_record is None:
            return await asyncio.to_thread(self._host.disks.at_rest, entry.record.spec)
        return await asyncio.to_thread(entry.machine.stats, entry.record.spec)

    async def blocked(self, machine: str) -> BlockedLog:
        """What its firewall refused it lately. Raises NotFound."""
        self.entry(machine)
        return await self._host.network.blocked(machine)

    def console(self, machine: str, limit: int) -> bytes:
        """The last `limit` bytes of its boot output. Raises NotFound."""
        return self.entry(machine).machine.console(limit)

    async def close(self) -> None:
        """Stop watching. The machines go on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in self._entries.values():
            await entry.machine.let_go()

    def watch(self, entry: Entry) -> None:
        """Notice from now on when it ends by itself."""
        process = entry.machine.process
        if process is not None:
            task = asyncio.create_task(self._notice(entry, process))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _notice(self, entry: Entry, process: Process) -> None:
        ended = await process.wait()
        async with entry.lock:
            if entry.gone or entry.machine.process is not process:
                return  # it was stopped, and that is dealt with
            await self.finish(entry, ended, requested=False)
        self._events.emit(entry.record.spec.id, "exited", entry.state, entry.record.exit)

    async def finish(self, entry: Entry, ended: Ended, *, requested: bool) -> None:
        """Write down how it ended, and remove what it left on the host."""
        ended = await entry.machine.outcome(ended)
        kills = await asyncio.to_thread(entry.machine.oom_kills)
        outcome = MachineExit(
            at=datetime.now(UTC),
            code=ended.code,
            signal=ended.signal,
            oom=kills > 0 and ended.code != 0 and not requested,
            requested=requested,
            reason=None if requested else ended.reason,
        )
        await self.note(entry, exit=outcome, booted=False)
        await entry.machine.clean()

    async def end(self, entry: Entry, grace: float | None = None) -> bool:
        """End a machine as it was asked for; False: it does not run.

        It is asked, then after `grace` seconds made to; without `grace` made to at once.
        """
        process = entry.machine.process
        if process is None:
            return False
        entry.passing = MachineState.STOPPING
        try:
            if grace is None:
                await entry.machine.kill()
            else:
                await entry.machine.stop(grace)
            await self.finish(entry, await process.wait(), requested=True)
        finally:
            entry.passing = None
        self._events.emit(entry.record.spec.id, "stopped", entry.state, entry.record.exit)
        return True

    async def note(self, entry: Entry, **changes: object) -> None:
        """Change the record of a machine, on the disk before this returns."""
        if "booted" in changes:
            entry.trouble = None
        entry.record = entry.record.model_copy(update=changes)
        await asyncio.to_thread(self._store.save, entry.record)

    def check(self, spec: MachineSpec) -> None:
        """Refuse a document that cannot be followed. Raises Invalid."""
        self._host.network.check(spec.network)
        if len(boot_document(spec, "", "")) > MOST_DOCUMENT:
            raise Invalid("environment and command together exceed 1 MiB", field="env")

    def entry(self, machine: str) -> Entry:
        """One machine. Raises NotFound."""
        entry = self._entries.get(machine)
        if entry is None:
            raise NotFound(f"there is no machine {machine} on this node")
        return entry
