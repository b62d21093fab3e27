"""How many workspaces an account may have, and how large each may be."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.config import Config
from bastide.domain.errors import LimitReached, RunningPoolReached, ValidationFailed
from bastide.domain.lifecycle import WANTED_UP
from bastide.domain.limits import Limits
from bastide.domain.machine import ImageInfo
from bastide.settings import Machines
from bastide.store.accounts import Accounts
from bastide.store.workspaces import Filter, Workspaces

_FIELDS = ("cpus", "memory_mb", "disk_size_mb")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one workspace: cores, MiB of memory, MiB of disk."""

    cpus: float
    memory_mb: int
    disk_mb: int


class Allowance:
    """Limits of the server (settings) and of accounts (rows)."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def limits(self, session: AsyncSession, account_id: str) -> Limits:
        """The limits of an account."""
        account = await Accounts(session).get(account_id)
        return Limits.model_validate(account.limits if account is not None else {})

    async def count_new(self, session: AsyncSession, account_id: str) -> Limits:
        """Make sure that one more workspace may be made and run; gives the account's limits.

        The account's row is held until the transaction ends, so two creations cannot both count
        the same free place (spec 4.1).

        Raises:
            LimitReached, RunningPoolReached: with the figures.
        """
        limits = await self._hold(session, account_id)
        if limits.max_workspaces is not None:
            count = await Workspaces(session).count(Filter(account_id))
            if count >= limits.max_workspaces:
                raise LimitReached(current=count, maximum=limits.max_workspaces)
        await self._count_running(session, account_id, limits)
        return limits

    async def count_start(self, session: AsyncSession, account_id: str) -> None:
        """Make sure that one more workspace may run.

        Raises:
            RunningPoolReached: as many run as may.
        """
        await self._count_running(session, account_id, await self._hold(session, account_id))

    def sizes(
        self,
        config: Config,
        image: ImageInfo,
        limits: Limits,
        now: Sizes | None = None,
        *,
        place: str = "config.",
    ) -> Sizes:
        """The sizes asked for, else those of `now`, else the defaults as far as they are allowed.

        `place` is where in the body the fields are. What is not asked for stays as it is now,
        also above a limit that was lowered since.

        Raises:
            ValidationFailed: one is out of bounds; the message says which bounds.
        """
        server = self._machines
        usual = now or Sizes(
            image.cpus or server.default_cpus,
            max(image.memory_mb or server.default_memory_mb, image.minimum_memory_mb),
            max(image.disk_mb or server.default_disk_mb, image.minimum_disk_mb),
        )
        least = (0.25, image.minimum_memory_mb, image.minimum_disk_mb)
        largest = self.largest(limits)
        most = (largest.cpus, largest.memory_mb, largest.disk_mb)
        wanted = (config.cpus, config.memory_mb, config.disk_mb)
        for field, size, low, high in zip(_FIELDS, wanted, least, most, strict=True):
            if size is not None and not low <= size <= high:
                raise ValidationFailed(
                    f"{place}{field}",
                    f"{field} must be between {low:g} and {high:g} for this account and image.",
                )
        if now is None:
            usual = Sizes(
                min(usual.cpus, most[0]),
                int(min(usual.memory_mb, most[1])),
                int(min(usual.disk_mb, most[2])),
            )
        return Sizes(
            usual.cpus if config.cpus is None else config.cpus,
            usual.memory_mb if config.memory_mb is None else config.memory_mb,
            usual.disk_mb if config.disk_mb is None else config.disk_mb,
        )

    def largest(self, limits: Limits) -> Sizes:
        """The most one workspace of an account may have."""
        server = self._machines
        return Sizes(
            _less(server.max_cpus, limits.max_cpus),
            int(_less(server.max_memory_mb, limits.max_memory_mb)),
            int(_less(server.max_disk_mb, limits.max_disk_mb)),
        )

    async def _hold(self, session: AsyncSession, account_id: str) -> Limits:
        account = await Accounts(session).hold(account_id)
        return Limits.model_validate(account.limits if account is not None else {})

    async def _count_running(self, session: AsyncSession, account_id: str, limits: Limits) -> None:
        if limits.max_running is None:
            return
        running = Filter(account_id, desired=WANTED_UP)
        count = await Workspaces(session).count(running)
        if count >= limits.max_running:
            raise RunningPoolReached(current=count, maximum=limits.max_running)


def _less(server: float, account: float | None) -> float:
    """The smaller bound."""
    return server if account is None else min(server, account)
