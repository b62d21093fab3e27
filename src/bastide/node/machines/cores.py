"""Which cores of the host each machine may run on, so that it counts as many as it was given."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Sequence


class Cores:
    """The cores of this host, and the machines on them.

    A machine with fewer processors than the host has is held to as many cores (rounded up): its
    programs ask the kernel on how many they may run, and there is no other way to answer. New
    machines get the cores that the fewest others share.
    """

    def __init__(self, numbers: Sequence[int] | None = None) -> None:
        """`numbers`: the cores there are; those of this process by default."""
        self.all = tuple(sorted(os.sched_getaffinity(0) if numbers is None else numbers))
        self._held: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def take(self, machine: str, cpus: float) -> tuple[int, ...]:
        """The cores for a machine of `cpus` processors; of those it has it keeps what it can."""
        count = min(math.ceil(cpus), len(self.all))
        with self._lock:
            had = self._held.pop(machine, ())
            load = Counter(core for cores in self._held.values() for core in cores)
            best = sorted(self.all, key=lambda core: (core not in had, load[core], core))
            cores = tuple(sorted(best[:count]))
            if len(cores) < len(self.all):
                self._held[machine] = cores
            return cores

    def of(self, machine: str) -> tuple[int, ...]:
        """The cores a machine runs on."""
        return self._held.get(machine, self.all)

    def hold(self, machine: str, cores: tuple[int, ...]) -> None:
        """Count a machine that an earlier node has put on some cores."""
        if cores and set(cores) < set(self.all):
            with self._lock:
                self._held[machine] = cores

    def leave(self, machine: str) -> None:
        """Count a machine no more."""
        with self._lock:
            self._held.pop(machine, None)


def listed(cores: Sequence[int]) -> str:
    """Cores as the kernel writes them: `0-2,5`."""
    parts: list[str] = []
    ordered = sorted(cores)
    start = 0
    for at, core in enumerate(ordered):
        if at + 1 == len(ordered) or ordered[at + 1] != core + 1:
            first = ordered[start]
            parts.append(str(core) if first == core else f"{first}-{core}")
            start = at + 1
    return ",".join(parts)


def parsed(text: str) -> tuple[int, ...]:
    """Cores as the kernel writes them, read back."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)
