"""What a workspace costs in credits, by the operator's own price table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

HOURS_A_MONTH = 730.0
USUAL_SHARE = 0.25
"""The part of its processor time a workspace is taken to use on average."""


class PriceTable(Protocol):
    """Credits for an hour of one core's time, a GiB of memory an hour, a GiB of disk a month."""

    @property
    def cpu_hour(self) -> float:
        """Of processor time that was really used."""

    @property
    def memory_gib_hour(self) -> float:
        """Of memory a running workspace may use."""

    @property
    def disk_gib_month(self) -> float:
        """Of disk a workspace may use."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Credits a month: idle, usual, and with every core busy all the time."""

    least: float
    usual: float
    most: float


def estimate(prices: PriceTable, *, cpus: float, memory_mb: float, disk_mb: float) -> Estimate:
    """What a workspace of these sizes that always runs costs a month, without its traffic."""
    held = (
        memory_mb / 1024 * prices.memory_gib_hour * HOURS_A_MONTH
        + disk_mb / 1024 * prices.disk_gib_month
    )
    busy = cpus * prices.cpu_hour * HOURS_A_MONTH
    return Estimate(round(held, 4), round(held + busy * USUAL_SHARE, 4), round(held + busy, 4))
