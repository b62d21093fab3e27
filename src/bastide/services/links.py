"""Private links: which workspaces may call which (spec 4.4, 5.5).

A target's row holds the ids of its callers (`private_link_ids`) and the addresses they have now
(`links`), which is what the firewall is told. The addresses follow the callers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.errors import NotFound, ValidationFailed
from bastide.domain.lifecycle import DesiredState
from bastide.domain.network import MAX_ENTRIES
from bastide.engine.contract import EngineError, EngineUnavailable
from bastide.services.caller import Caller
from bastide.services.reach import Reach, changed_network
from bastide.store.database import Database
from bastide.store.tables import Workspace
from bastide.store.workspaces import Filter, Workspaces

_ATTEMPTS = 8
IDS, ADDRESSES = "private_link_ids", "links"
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Callers:
    """The workspaces that may call one: those a credential sees, and those it does not."""

    seen: list[Workspace]
    hidden: list[Workspace]


async def linked(
    session: AsyncSession, caller: Caller, references: Sequence[str], target: Workspace | None
) -> dict[str, Any]:
    """The network columns for these callers, named by id or slug; `target` is None for a new one.

    Callers that the credential does not see stay: it could neither have listed them nor left
    them out.

    Raises:
        NotFound: one of them is none the caller reaches; the message names it.
        ValidationFailed: the target itself is among them, or with those that stay they are too
            many.
    """
    found: dict[str, Workspace] = {}
    for reference in references:
        row = await Workspaces(session).find(caller.account_id, reference)
        if row is None or row.desired_state is DesiredState.DELETED or not caller.may_see(row):
            raise NotFound(
                f"private_link_ids: there is no workspace {reference[:100]!r} that these "
                "credentials reach. Check the id with GET /workspace.",
                details={"field": IDS},
            )
        if target is not None and row.id == target.id:
            raise ValidationFailed(IDS, "A workspace needs no link to itself; leave its id out.")
        found[row.id] = row
    hidden = [] if target is None else (await callers_of(session, caller, target)).hidden
    if len(found) + len(hidden) > MAX_ENTRIES:
        raise ValidationFailed(
            IDS,
            f"A workspace has at most {MAX_ENTRIES} linked callers, and {len(hidden)} that these "
            "credentials do not see are linked already.",
        )
    found |= {row.id: row for row in hidden}
    return {IDS: list(found), ADDRESSES: addresses(found.values())}


def addresses(callers: Iterable[Workspace]) -> list[str]:
    """The addresses of those that have one, in order."""
    return sorted({row.address for row in callers if row.address})


async def callers_of(session: AsyncSession, caller: Caller, row: Workspace) -> Callers:
    """The workspaces linked to one, as far as a credential sees them."""
    rows = await _callers(session, row)
    seen = [one for one in rows if caller.may_see(one)]
    return Callers(seen, [one for one in rows if not caller.may_see(one)])


async def _callers(session: AsyncSession, row: Workspace) -> list[Workspace]:
    """The workspaces linked to one, in the order they were listed."""
    ids = row.network.get(IDS) or []
    if not ids:
        return []
    rows = {found.id: found for found in await Workspaces(session).page(Filter(ids=ids))}
    return [rows[one] for one in ids if one in rows]


class Links:
    """Keeps what firewalls know of callers true."""

    def __init__(self, database: Database, reach: Reach) -> None:
        self._database = database
        self._reach = reach

    async def follow(self, rows: Sequence[Workspace]) -> int:
        """Bring the addresses of all callers up to date; `rows` are all there are. How many."""
        known = {row.id: row for row in rows}
        stale = [row.id for row in rows if row.network.get(IDS) and _wanted(row, known)]
        return sum([await self._renew(target) for target in stale])

    async def leave(self, caller: str) -> None:
        """Take a workspace that is being deleted out of everyone's lists, in force at once.

        Raises:
            EngineError: a firewall could not be told; its row keeps the mark.
        """
        async with self._database.read() as session:
            targets = await Workspaces(session).mentioning(caller)
        for target in targets:
            if caller in (target.network.get(IDS) or ()):
                await self._renew(target.id, without=caller)

    async def _renew(self, target: str, without: str | None = None) -> bool:
        """Write the addresses of now, and put them in force."""
        for _ in range(_ATTEMPTS):
            async with self._database.write() as session:
                row = await Workspaces(session).get(target)
                if row is None:
                    return False
                callers = await _callers(session, row)
                changes = _wanted(row, {one.id: one for one in callers if one.id != without})
                if not changes:
                    return False
                values = {"network": changed_network(row, **changes)}
                seen = {"updated_at": row.updated_at}
                if await Workspaces(session).update(row.id, values, expected=seen):
                    break
        else:  # looked at again with the next observation, or the next try of the deletion
            if without is None:
                return False
            raise EngineUnavailable(f"the workspace {target} is changing too fast")
        try:
            await self._reach.put_in_force(target)
        except EngineError as error:
            if without is not None:
                raise
            log.warning("links.behind", workspace_id=target, error=error.message)
        return True


def _wanted(row: Workspace, known: dict[str, Workspace]) -> dict[str, Any]:
    """The network columns that are not what they should be."""
    ids = [one for one in row.network.get(IDS) or () if one in known]
    wanted = {IDS: ids, ADDRESSES: addresses(known[one] for one in ids)}
    return {key: value for key, value in wanted.items() if row.network.get(key) != value}
