"""Gateway tokens, kept while they are good."""

from __future__ import annotations

import time
from collections.abc import Callable

KEEP_SECONDS = 55 * 60


class Tokens:
    """One gateway token per workspace, forgotten five minutes before it could expire."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[str, float]] = {}

    def get(self, workspace: str) -> str | None:
        """A token that is still good, or None."""
        token, until = self._kept.get(workspace, ("", 0.0))
        return token if token and self._clock() < until else None

    def keep(self, workspace: str, token: str) -> str:
        """Remember a fresh token, and give it back."""
        self._kept[workspace] = (token, self._clock() + KEEP_SECONDS)
        return token

    def forget(self, workspace: str) -> None:
        """Do not use the kept one again."""
        self._kept.pop(workspace, None)
