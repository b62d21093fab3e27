"""One service the supervisor keeps running."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Launch:
    """What is run: an argv list and the whole environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


async def at_once() -> bool:
    """The readiness of a service that has nothing to wait for."""
    return True


@dataclass(frozen=True)
class Service:
    """What to run and how to know that it is ready.

    `launch` is asked before every start, so that it can write what the service reads; when it
    raises, that counts as a start that failed. Times in seconds: `patience` is how long later
    services wait for this one, `grace` how long it may take to end. `appends` is whether it leaves
    its output open for appending, as its log needs; for one that does not, a `cat` writes.
    """

    name: str
    launch: Callable[[], Launch]
    ready: Callable[[], Awaitable[bool]] = at_once
    patience: float = 30.0
    grace: float = 15.0
    appends: bool = True
