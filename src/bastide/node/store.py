"""What the node remembers: records that last, and what belongs to the present boot.

`state_dir/machines/ID/machine.json` outlives a reboot of the host and holds no secret.
`run_dir/machines/ID/boot.json` is gone after one, as is what it speaks of; it holds the control
token and is 0600. Both are replaced whole, never written in place.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bastide.domain.machine import MachineExit, MachineSpec
from bastide.node.errors import room_for

_M = TypeVar("_M", bound=BaseModel)


class Origin(BaseModel):
    """What a disk belongs to: `digest` of its image, and the tier that may write to it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    tier: str


class MachineRecord(BaseModel):
    """A machine this node was asked to make. `first_id` begins its range of host ids.

    `booted` holds from the beginning of a boot to the end of it: a machine that does not run
    although it holds has ended unseen.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    spec: MachineSpec
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="image its disk belongs to")
    first_id: int
    booted: bool = False
    tier: str = Field("container", description="what runs it, or ran it last")
    former: Origin | None = Field(None, description="of the disk a restore has put aside")
    exit: MachineExit | None = None
    error: str | None = None

    @property
    def origin(self) -> Origin:
        """What its disk belongs to."""
        return Origin(digest=self.digest, tier=self.tier)


class BootRecord(BaseModel):
    """The boot of a machine: `ready` once its agent answered. Timings in milliseconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    boot_id: str
    token: str = Field(repr=False)
    pid: int
    started: int = Field(description="start time of the process, ticks since the host booted")
    at: datetime
    ready: bool = False
    timings: dict[str, float] = Field(default_factory=dict)
    bundle: str = Field("", description="digest of the agent's bundle")


class Store:
    """The records of this node's machines."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "machines"

    def all(self) -> list[MachineRecord]:
        """Every record that can be read; what cannot is left where it is."""
        found = []
        for path in sorted(self.directory.glob("ws_*/machine.json")):
            record = read(MachineRecord, path)
            if record is not None and record.spec.id == path.parent.name:
                found.append(record)
        return found

    def save(self, record: MachineRecord) -> None:
        """Keep a record, on the disk before this returns. Raises NoSpace."""
        directory = self.directory / record.spec.id
        with room_for(f"the record of {record.spec.id}"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(directory / "machine.json", record)

    def remove(self, machine: str) -> None:
        """Forget a machine; harmless when it is unknown."""
        directory = self.directory / machine
        for path in directory.glob("*machine.json*"):
            path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            directory.rmdir()


def read(kind: type[_M], path: Path) -> _M | None:
    """A record from a file, or None when there is none that makes sense."""
    try:
        return kind.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None


def write(path: Path, record: BaseModel) -> None:
    """Replace a file (0600) with a record in one step."""
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(record.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
