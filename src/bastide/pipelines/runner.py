"""All pipelines of one process."""

from __future__ import annotations

import asyncio

from bastide.pipelines.archive_sweep import ArchiveSweep
from bastide.pipelines.archiving import Archiving
from bastide.pipelines.clock import Clock
from bastide.pipelines.deletion import Deletion
from bastide.pipelines.leases import Leases
from bastide.pipelines.observation import Observation
from bastide.pipelines.owner import Owner, free_locks
from bastide.pipelines.power import Power
from bastide.pipelines.provisioning import Provisioning
from bastide.pipelines.resizing import Resizing
from bastide.pipelines.snapshots import Snapshots
from bastide.pipelines.sweep import Sweep
from bastide.pipelines.tools import Tools
from bastide.services.archive_files import ArchiveFiles
from bastide.services.backups import Backups


class Runner:
    """Runs every pipeline; `run` is a task of the app's lifespan."""

    def __init__(self, tools: Tools, backups: Backups, files: ArchiveFiles) -> None:
        self._tools = tools
        self._owner = Owner()
        self.provisioning = Provisioning(tools, self._owner, backups)
        self.power = Power(tools, self._owner)
        self.resizing = Resizing(tools, self._owner)
        self.snapshots = Snapshots(tools, self._owner)
        self.archiving = Archiving(tools, self._owner, backups, files)
        self.deletion = Deletion(tools, self._owner)
        self.leases = Leases(tools)
        self.clock = Clock(tools)
        self.observation = Observation(tools)
        self.sweep = Sweep(tools)
        self.archive_sweep = ArchiveSweep(files)

    async def run(self) -> None:
        """Work until cancelled; takes up at once what a dead process has left."""
        await free_locks(self._tools.database, self._owner)
        async with asyncio.TaskGroup() as tasks:
            worked = (
                self.provisioning,
                self.power,
                self.resizing,
                self.snapshots,
                self.archiving,
                self.deletion,
            )
            for part in worked:
                tasks.create_task(part.run())
            tasks.create_task(self.clock.run())
            tasks.create_task(self.leases.run())
            tasks.create_task(self.observation.run())
            tasks.create_task(self.sweep.run())
            tasks.create_task(self.archive_sweep.run())
