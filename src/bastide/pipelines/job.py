"""An operation in work, and how it may end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.operation import Phase
from bastide.store.tables import Operation, Workspace


@dataclass(frozen=True)
class Done:
    """The end of an operation: columns for the workspace, or None when its row goes away.

    `params` are kept with the operation in the place of those it began with; `then` writes what
    else must hold with it, in the same transaction.
    """

    message: str
    workspace: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None
    params: Mapping[str, Any] | None = None
    then: Callable[[AsyncSession], Awaitable[object]] | None = None


@dataclass(frozen=True)
class Later:
    """No end yet: the engine could not be reached; try again in `delay` seconds."""

    message: str
    delay: float


@dataclass
class Job:
    """An operation in work, with the row as it was when the work began."""

    operation: Operation
    row: Workspace
    lock: str
    phase: tuple[Phase, str] | None = None
    shown: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def show(self, phase: Phase, message: str) -> None:
        """Tell people what is going on; written in the background, and only if it lasts."""
        self.phase = (phase, message)
        self.shown.set()

    @property
    def automatic(self) -> bool:
        """Whether Bastide itself began it."""
        return "cause" in self.operation.params
