"""The sizes of a workspace, and how they may change (spec 4.7)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from bastide.domain.config import Config, Cores, Disk, Memory


class ChangeResources(BaseModel):
    """Body of PUT and PATCH /workspace/:id/resources; only what is given changes.

    Cores, MiB of memory, MiB of disk (by either name). `apply`: now, else from the next start.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    cpus: Cores | None = None
    memory_mb: Memory | None = None
    disk_size_mb: Disk | None = None
    writable_size_mb: Disk | None = Field(None, description="older name of disk_size_mb")
    apply: StrictBool = False

    @model_validator(mode="after")
    def _something(self) -> ChangeResources:
        if self.config.disk_mb is None and self.cpus is None and self.memory_mb is None:
            raise ValueError("give cpus, memory_mb or disk_size_mb")
        return self

    @property
    def config(self) -> Config:
        """The sizes as part of a configuration."""
        return Config(**self.model_dump(exclude={"apply"}, exclude_none=True))
