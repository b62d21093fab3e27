"""What runs, as the supervisor wrote it down: `run_dir/supervisor.json`.

A new supervisor adopts from it, the guard and `bastide status` read it. Standard library only,
because the guard imports it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bastide.supervisor.process import Process

ServiceState = Literal["starting", "running", "waiting", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One service: its process, state, how often it was restarted and how it last ended."""

    name: str
    state: ServiceState
    process: Process | None = None
    restarts: int = 0
    last_exit: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """The supervisor's own process and its services, in the order they are started."""

    supervisor: Process
    stopping: bool = False
    entries: tuple[Entry, ...] = field(default_factory=tuple)

    def entry(self, name: str) -> Entry | None:
        """The service of that name."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(asdict(self), indent=1) + "\n")
        draft.chmod(0o600)
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """The record, or None when there is none or it cannot be read as one."""
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            return cls(
                Process(**data["supervisor"]),
                bool(data["stopping"]),
                tuple(
                    Entry(**{**entry, "process": _process(entry["process"])})
                    for entry in data["entries"]
                ),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None


def record_path(run_dir: Path) -> Path:
    """Where the record of a server lies."""
    return run_dir / "supervisor.json"


def lock_path(run_dir: Path) -> Path:
    """The file whose lock the one supervisor of a server holds."""
    return run_dir / "supervisor.lock"


def _process(data: dict[str, int] | None) -> Process | None:
    return None if data is None else Process(**data)
