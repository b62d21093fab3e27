"""How every benchmark here tells its figures: percentiles, how many, and how many succeeded."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


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


def options(parser: ArgumentParser) -> None:
    """The arguments that say how figures are told, for `finish`."""
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--save", action="store_true", help="keep both forms in bench/results")


def finish(name: str, results: Mapping[str, Samples], arguments: Namespace) -> None:
    """Print one JSON object and nothing else, or a table headed by hardware and commit.

    Both forms are kept as `bench/results/NAME.json` and `NAME.txt` when that is asked for.
    """
    print(as_object(results) if arguments.json else table(results))
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(as_object(results) + "\n")
        (RESULTS / f"{name}.txt").write_text(table(results) + "\n")


def as_object(results: Mapping[str, Samples]) -> str:
    """One JSON object, a member for each figure."""
    return json.dumps({name: samples.summary() for name, samples in results.items()})


def table(results: Mapping[str, Samples]) -> str:
    """A line for each figure, below hardware and commit."""
    width = max(len(name) for name in results) + 2
    head = f"{'':{width}}{'p50':>10}{'p95':>10}{'p99':>10}{'n':>7}{'success':>9}  unit"
    lines = [hardware(), head]
    for name, samples in results.items():
        row = samples.summary()
        cells = "".join(f"{row[key]:>10}" for key in ("p50", "p95", "p99"))
        lines.append(f"{name:{width}}{cells}{row['n']:>7}{row['success_rate']:>9}  {row['unit']}")
    return "\n".join(lines)


def hardware() -> str:
    """Processor, cores, memory, kernel, commit, day and how busy the host is, in one line."""
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
    day = datetime.now(UTC).date().isoformat()
    return f"{machine}, commit {commit or 'unknown'}, {day}, load {os.getloadavg()[0]:.1f}"
