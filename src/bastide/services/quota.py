"""What an account has and may have, and what a workspace would cost (spec 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from bastide.domain.lifecycle import WANTED_UP
from bastide.domain.price import Estimate, estimate
from bastide.services.allowance import Allowance, Sizes
from bastide.services.caller import Caller
from bastide.settings import Machines, Prices
from bastide.store.accounts import Accounts
from bastide.store.database import Database
from bastide.store.workspaces import Filter, Workspaces


@dataclass(frozen=True, slots=True)
class Use:
    """How many workspaces, and their cores, MiB of memory, of disk and of snapshots in all."""

    count: int
    cpus: float
    memory_mb: int
    disk_mb: int
    snapshot_mb: int


@dataclass(frozen=True, slots=True)
class Quota:
    """An account's limits (None: unlimited) and what it uses; `largest` is one workspace's."""

    largest: Sizes
    max_workspaces: int | None
    max_running: int | None
    owned: Use
    running: Use

    @property
    def reason(self) -> str | None:
        """Why no workspace can be made now; None when one can."""
        if self.max_workspaces is not None and self.owned.count >= self.max_workspaces:
            return f"The account has as many workspaces as it may have ({self.max_workspaces})."
        if self.max_running is not None and self.running.count >= self.max_running:
            return f"As many workspaces run as may ({self.max_running}); stop one first."
        return None


class QuotaService:
    """Counts, bounds and prices; changes nothing."""

    def __init__(
        self, database: Database, allowance: Allowance, machines: Machines, prices: Prices
    ) -> None:
        self._database = database
        self._allowance = allowance
        self._machines = machines
        self._prices = prices

    async def get(self, caller: Caller) -> tuple[str, Quota]:
        """The account's name and its quota.

        Raises:
            Forbidden: a billing credential.
        """
        caller.require_workspaces()
        owned = Filter(caller.account_id)
        running = Filter(caller.account_id, desired=WANTED_UP)
        async with self._database.read() as session:
            limits = await self._allowance.limits(session, caller.account_id)
            account = await Accounts(session).get(caller.account_id)
            workspaces = Workspaces(session)
            quota = Quota(
                self._allowance.largest(limits),
                limits.max_workspaces,
                limits.max_running,
                Use(*await workspaces.totals(owned)),
                Use(*await workspaces.totals(running)),
            )
        return account.name if account is not None else "", quota

    def estimate(
        self, *, cpus: float | None, memory_mb: float | None, disk_mb: float | None
    ) -> tuple[Estimate, Prices]:
        """Credits a month for these sizes, the default ones where none is given."""
        usual = self._machines
        found = estimate(
            self._prices,
            cpus=usual.default_cpus if cpus is None else cpus,
            memory_mb=usual.default_memory_mb if memory_mb is None else memory_mb,
            disk_mb=usual.default_disk_mb if disk_mb is None else disk_mb,
        )
        return found, self._prices
