"""One service the supervisor keeps running."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


async def at_once() -> bool:
    """The readiness of a service that has nothing to wait for."""
    return True


@dataclass(frozen=True)
class Service:
    """What to run and how to know that it is ready.

    `argv` may be a function for a command that is only known when it is started. `user` runs it
    without the supervisor's privileges. Times in seconds: `patience` is how long later services
    wait for this one, `grace` how long it may take to end.
    """

    name: str
    argv: tuple[str, ...] | Callable[[], tuple[str, ...]]
    ready: Callable[[], Awaitable[bool]] = at_once
    user: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    patience: float = 30.0
    grace: float = 15.0

    @property
    def command(self) -> tuple[str, ...]:
        """The argv to run now."""
        return self.argv() if callable(self.argv) else self.argv
