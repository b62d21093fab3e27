"""Power of the machines of this node: started, ended, frozen, resized, one at a time each."""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from bastide.domain.machine import MachineSpec, MachineState, MachineStatus, Resources
from bastide.node.errors import Conflict, NodeError
from bastide.node.events import Events
from bastide.node.machines.container import Container
from bastide.node.machines.entry import Entry, without_secrets
from bastide.node.machines.fleet import Fleet
from bastide.node.machines.host import Host
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.tiers import Tiers
from bastide.node.store import Origin

_log = structlog.get_logger(__name__)


class Power:
    """What may be asked of the machines of `fleet`, each idempotent by id.

    What is asked of one machine takes turns; `kill` first ends what a longer one is waiting for.
    """

    def __init__(self, host: Host, tiers: Tiers, fleet: Fleet, events: Events) -> None:
        self._host = host
        self._tiers = tiers
        self._fleet = fleet
        self._events = events

    async def start(self, spec: MachineSpec) -> MachineStatus:
        """Boot and return when the agent is ready; one that runs is left as it is.

        Raises:
            NotFound: it was never created.
            Conflict: it was made from another image.
            BootFailed, NotReady, NoSpace, ImageUnavailable: it does not come up.
        """
        self._fleet.check(spec)
        entry = self._fleet.entry(spec.id)
        async with entry.lock:
            entry.check_there()
            entry.check_image(spec)
            if entry.machine.boot_record is not None:
                return self._fleet.status(spec.id)
            async with self._fleet.boots:
                await self._boot(entry, spec)
        return self._fleet.status(spec.id)

    async def _boot(self, entry: Entry, spec: MachineSpec) -> None:
        entry.passing = MachineState.STARTING
        try:
            await self._fleet.take_back(entry)
            await self._fleet.note(
                entry, spec=without_secrets(spec), exit=None, error=None, booted=True
            )
            await self._fleet.provide(entry.record)
            await self._move(entry, self._tiers.choose(spec.driver))
            ids = IdRange(entry.record.first_id)
            digest = entry.record.digest
            furnished = await asyncio.to_thread(self._host.images.furnish, spec, digest)
            boot = await entry.machine.boot(furnished, digest, ids)
        except Exception as error:
            entry.passing = None
            text = error.message if isinstance(error, NodeError) else repr(error)
            await self._fleet.note(entry, error=text, booted=False)
            self._events.emit(spec.id, "failed", entry.state)
            raise
        finally:
            entry.passing = None
        _log.info("machine.ready", workspace=spec.id, **boot.timings)
        self._fleet.watch(entry)
        self._events.emit(spec.id, "started", entry.state)

    async def _move(self, entry: Entry, tier: str) -> None:
        """Make a machine that does not run one of another tier; its disk goes with it.

        Raises:
            BootFailed: the disk is damaged.
        """
        if entry.record.tier == tier:
            return
        machine = entry.record.spec.id
        await entry.machine.clean()
        if tier == Container.tier:
            await asyncio.to_thread(self._host.disks.mend, machine)
        await self._fleet.become(entry, Origin(digest=entry.record.digest, tier=tier))

    async def stop(self, machine: str, grace: float) -> MachineStatus:
        """End it: asked, then after `grace` seconds made to. The disk stays."""
        return await self._end(machine, grace)

    async def kill(self, machine: str) -> MachineStatus:
        """End it at once, also while it starts or stops. The disk stays."""
        self._fleet.entry(machine).interrupt()
        return await self._end(machine)

    async def _end(self, machine: str, grace: float | None = None) -> MachineStatus:
        entry = self._fleet.entry(machine)
        async with entry.lock:
            entry.check_there()
            if not await self._fleet.end(entry, grace) and entry.record.error is not None:
                await self._fleet.note(entry, error=None)  # a failed one that is stopped is stopped
        return self._fleet.status(machine)

    async def pause(self, machine: str) -> MachineStatus:
        """Freeze it, memory kept. Raises Conflict when it does not run."""
        entry = self._fleet.entry(machine)
        async with entry.lock:
            entry.check_runs()
            if not entry.machine.paused:
                await entry.machine.pause()
                self._tell_then(entry, "paused")
        return self._fleet.status(machine)

    async def resume(self, machine: str) -> MachineStatus:
        """Let it go on. Raises Conflict when it does not run."""
        entry = self._fleet.entry(machine)
        async with entry.lock:
            entry.check_runs()
            if entry.machine.paused:
                await entry.machine.resume()
                self._tell_then(entry, "resumed")
        return self._fleet.status(machine)

    def _tell_then(self, entry: Entry, kind: str) -> None:
        """Tell everyone, once who has asked is answered: that takes as long as to freeze."""
        emit = partial(self._events.emit, entry.record.spec.id, kind, entry.state)
        asyncio.get_running_loop().call_soon(emit)

    async def resize(self, machine: str, resources: Resources) -> MachineStatus:
        """Other limits for a running machine, hot; the disk's size counts from its next boot.

        Raises:
            NotFound, Conflict: there is none, it does not run, or is paused.
            MemoryInUse: it uses more memory than that.
        """
        entry = self._fleet.entry(machine)
        async with entry.lock:
            entry.check_runs()
            if entry.machine.paused:
                raise Conflict(f"{machine} is paused: resume it first")
            await entry.machine.resize(resources)
            disk = {"disk_mb": entry.record.spec.resources.disk_mb}
            spec = entry.record.spec.model_copy(
                update={"resources": resources.model_copy(update=disk)}
            )
            await self._fleet.note(entry, spec=spec)
        return self._fleet.status(machine)
