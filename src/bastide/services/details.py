"""Everything about a workspace at once (spec 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from bastide.domain.errors import BastideError
from bastide.domain.machine import UP, MachineStats
from bastide.engine.contract import Engine, EngineError
from bastide.services.caller import Caller
from bastide.services.lifecycle import LifecycleService, LifecycleView
from bastide.services.runtime_access import RuntimeAccessService


@dataclass(frozen=True, slots=True)
class Details:
    """A workspace's lifecycle, its use now (None: it does not run), and its gateway token.

    The token is None while runtime access is off.
    """

    lifecycle: LifecycleView
    stats: MachineStats | None
    token: str | None
    token_expires_at: datetime | None


class DetailService:
    """Puts together what the single endpoints tell."""

    def __init__(
        self, engine: Engine, lifecycle: LifecycleService, access: RuntimeAccessService
    ) -> None:
        self._engine = engine
        self._lifecycle = lifecycle
        self._access = access

    async def get(self, caller: Caller, reference: str) -> Details:
        """All there is; use and token are left out where they cannot be told.

        Raises:
            NotFound, Forbidden: none that the caller reaches.
        """
        found = await self._lifecycle.get(caller, reference)
        row = found.workspace.row
        stats = None
        if row.observed_state in UP:
            try:
                stats = await self._engine.stats(row.id)
            except EngineError:
                stats = None
        token, expires_at = None, None
        if row.runtime_enabled:
            try:
                issued = await self._access.token(caller, row.id)
                token, expires_at = issued.token, issued.expires_at
            except BastideError:  # switched off meanwhile
                token = None
        return Details(found, stats, token, expires_at)
