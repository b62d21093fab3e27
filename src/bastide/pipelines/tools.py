"""What pipelines work with."""

from __future__ import annotations

from dataclasses import dataclass

from bastide.domain.machine import STOP_GRACE
from bastide.engine.contract import Engine
from bastide.services.gateway import Gateway
from bastide.services.links import Links
from bastide.services.queue import Queue
from bastide.services.reach import Reach
from bastide.store.clock import Time, database_time
from bastide.store.database import Database


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What pipelines work with.

    `pids`: processes of one workspace. Seconds: `grace` of a stop, `patience` with an engine that
    cannot be reached, `lock` until a silent pass counts as dead, `beat` between signs of life,
    `poll` between looks for rows that nobody rings for, `settle` a phase must last to be written.
    `time` is the clock of leases.
    """

    database: Database
    queue: Queue
    engine: Engine
    reach: Reach
    gateway: Gateway
    pids: int = 1024
    grace: float = STOP_GRACE
    patience: float = 120.0
    lock: float = 20.0
    beat: float = 5.0
    poll: float = 1.0
    settle: float = 0.05
    time: Time = database_time

    @property
    def links(self) -> Links:
        """Private links, kept in force by the same means."""
        return Links(self.database, self.reach)
