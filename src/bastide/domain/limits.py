"""How much an account may have (spec 1.4): what `accounts.limits` may hold."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Limits(BaseModel):
    """Limits of one account; None: only those of the server.

    `max_workspaces` and `max_running` are counts; the others bound a single workspace: cores,
    MiB of memory, MiB of disk.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    max_workspaces: int | None = None
    max_running: int | None = None
    max_cpus: float | None = None
    max_memory_mb: int | None = None
    max_disk_mb: int | None = None
