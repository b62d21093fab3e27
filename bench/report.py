"""How every benchmark here tells its figures: percentiles, how many, and how many succeeded."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Samples:
    """Values of those attempts that succeeded, and how many were tried."""

    values: Sequence[float]
    tried: int
    unit: str = "ms"

    def at(self, share: float) -> float:
        """The nearest-rank percentile; 0 when nothing succeeded."""
        if not self.values:
            return 0.0
        ordered = sorted(self.values)
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    def summary(self) -> dict[str, float | int | str]:
        """The form all benchmarks print with `--json`."""
        return {
            "p50": self.at(0.50),
            "p95": self.at(0.95),
            "p99": self.at(0.99),
            "n": self.tried,
            "success_rate": round(len(self.values) / self.tried, 4) if self.tried else 0.0,
            "unit": self.unit,
        }


def emit(results: Mapping[str, Samples], *, as_json: bool) -> None:
    """Print one JSON object and nothing else, or a table headed by hardware and commit."""
    if as_json:
        print(json.dumps({name: samples.summary() for name, samples in results.items()}))
        return
    print(hardware())
    width = max(len(name) for name in results) + 2
    print(f"{'':{width}}{'p50':>10}{'p95':>10}{'p99':>10}{'n':>7}{'success':>9}  unit")
    for name, samples in results.items():
        row = samples.summary()
        cells = "".join(f"{row[key]:>10}" for key in ("p50", "p95", "p99"))
        print(f"{name:{width}}{cells}{row['n']:>7}{row['success_rate']:>9}  {row['unit']}")


def hardware() -> str:
    """Processor, cores, memory, kernel and commit in one line."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.machine(),
    )  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    machine = f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"
    return f"{machine}, commit {commit or 'unknown'}"
