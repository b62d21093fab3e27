"""The node as a whole: opened once, closed without touching what runs."""

from __future__ import annotations

import asyncio
import os
import platform
from contextlib import suppress
from importlib.metadata import version

import structlog

from bastide.domain.machine import Capabilities, ImageInfo
from bastide.node import inotify, kernel
from bastide.node.errors import ImageUnavailable, NodeError
from bastide.node.events import Events
from bastide.node.images import jobs
from bastide.node.images.garbage import Garbage
from bastide.node.images.workshop import Workshop
from bastide.node.machines.bundle import read_once
from bastide.node.machines.captures import Captures
from bastide.node.machines.fleet import Fleet
from bastide.node.machines.host import Host
from bastide.node.machines.power import Power
from bastide.node.machines.tiers import Tiers
from bastide.node.network import Network
from bastide.node.orphans import Orphans
from bastide.node.pool import Pool
from bastide.node.rehearsal import Rehearsal
from bastide.node.shortage import Shortage
from bastide.node.sweep import Swept, sweep
from bastide.settings import Settings

FIRST_SWEEP_SECONDS = 15.0
"""A runtime that an earlier node had started may still have been at work at our own start."""
SWEEP_SECONDS = 300.0
LOOK_SECONDS = 0.5
"""How often the room on the host is looked at: a fast writer takes it quickly."""
REFRESH_SECONDS = 2.0
"""How old the figures of /proc inside a machine may be."""
_log = structlog.get_logger(__name__)


class Node:
    """Everything bastide-node does, over the `host` it runs on."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.events = Events()
        self._tiers = Tiers(host)
        self.fleet = Fleet(host, self._tiers, self.events)
        self.power = Power(host, self._tiers, self.fleet, self.events)
        self.captures = Captures(host, self._tiers, self.fleet, self.events)
        self.shortage = Shortage(host, self.fleet)
        self._rehearsal = Rehearsal(host)
        self.workshop = Workshop(host.settings, host.images)
        self.garbage = Garbage(self.workshop, self._images_used, host.settings.images.cache_mb)
        self._orphans = Orphans()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def of(cls, settings: Settings) -> Node:
        """The node that the settings describe."""
        return cls(Host.of(settings, Network(settings)))

    async def open(self) -> None:
        """Prepare the host, take up what runs, and sweep what is left over.

        Raises:
            NodeError: the host cannot be prepared.
        """
        kernel.adopt_orphans()
        self.host.check_passage()
        try:
            await asyncio.to_thread(inotify.widen)
        except OSError as error:  # file watchers are scarce then; the doctor says so too
            _log.warning("node.inotify_limits", error=str(error), missing=inotify.shortfall())
        await self.host.runc.find()
        await self.host.criu.find()
        await self.host.microvm.find()
        await self.host.network.setup()
        await asyncio.to_thread(self._open_pool)
        await asyncio.to_thread(self.host.snapshots.sweep)
        await asyncio.to_thread(jobs.sweep, self.host.images.directory)
        running = await self.fleet.load()
        await self.sweep()
        await asyncio.to_thread(self._mount_images)
        with suppress(NodeError):  # whoever starts a machine is told that there is no bundle
            await asyncio.to_thread(lambda: read_once(self.host.bundle()))
        await self._rehearsal.run(self.fleet.ranges())
        self._tasks = [
            asyncio.create_task(self._sweep_often()),
            asyncio.create_task(self._refresh_often()),
            asyncio.create_task(self._look_often()),
        ]
        _log.info("node.ready", running=running, runtime=self.host.runc.describe())

    async def close(self) -> None:
        """Let go of everything; machines, mounts and rules stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.events.close()
        await self.workshop.close()
        await self.fleet.close()
        await self.host.network.close()
        self.host.cgroups.remove_parent()  # which stays while a machine is in it

    async def sweep(self) -> Swept:
        """Remove what belongs to no machine."""
        collected = await asyncio.to_thread(self._orphans.collect)
        if collected:
            _log.warning("node.orphans", collected=collected)
        return await sweep(self.host, self.fleet)

    async def _sweep_often(self) -> None:
        pause = FIRST_SWEEP_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = SWEEP_SECONDS
            try:
                await self.sweep()
                await self.garbage.collect()
                if not self._rehearsal.tried:
                    await self._rehearsal.run(self.fleet.ranges())
            except Exception:  # noqa: BLE001 - the next one may work; this one is in the log
                _log.exception("node.sweep_failed")

    async def _refresh_often(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.fleet.refresh()
                await self.shortage.tell()
            except Exception:  # noqa: BLE001 - the next one may work; this one is in the log
                _log.exception("node.refresh_failed")

    async def _look_often(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.shortage.look()
            except Exception:  # noqa: BLE001 - the next one may work; this one is in the log
                _log.exception("node.look_failed")

    def _open_pool(self) -> None:
        """Keep disks and snapshots where their blocks can be shared, if that is to be had."""
        place = Pool.of(self.host.settings).open()
        if place is not None and self.host.disks.directory.parent != place:
            self.host.disks.move(place / "disks")
            self.host.snapshots.move(place / "snapshots")

    def _mount_images(self) -> None:
        """Mount what is built, so that the first boot does not have to."""
        for image in self.host.images.list():
            if image.digest is not None:
                with suppress(ImageUnavailable):  # it is told of with the image
                    self.host.images.mount(image.digest)

    async def images(self) -> list[ImageInfo]:
        """The images of the catalogue, built or not, and what was imported and pulled."""
        used = self._images_used()
        found = await asyncio.to_thread(self.host.images.list)
        return [one.model_copy(update={"used": one.digest in used}) for one in found]

    def _images_used(self) -> set[str]:
        """The images that a machine or a snapshot needs."""
        return self.fleet.digests() | self.host.snapshots.digests()

    def capabilities(self) -> Capabilities:
        """What this node can do, and why not the rest."""
        tier, reason = self._tiers.usual
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return Capabilities(
            version=version("bastide"),
            tier=tier,
            tier_reason=reason,
            runtime=self.host.runc.describe(),
            pause=True,
            snapshot=self._rehearsal.reason is None,
            snapshot_unavailable_reason=self._rehearsal.reason,
            architecture=platform.machine(),
            cpus=os.cpu_count() or 1,
            memory_mb=pages * size // 2**20,
            subnet=str(self.host.settings.network.subnet),
            tiers=self._tiers.info(self._rehearsal.reason),
        )
