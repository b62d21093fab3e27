"""The guest kernel of this node: where `bastide prepare` put it, and which it is."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

HOME = "guest"
"""Below `state_dir/runtime`: a directory for each kernel, and the symlink `current`."""


class KernelRecord(BaseModel):
    """What is known of a prepared kernel (`kernel.json`).

    `digest` covers all that went into it and names its directory, `release` is what uname says,
    `package` the version of Debian's package `name`.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    name: str
    package: str
    release: str


class Kernel:
    """A prepared kernel in its directory."""

    def __init__(self, directory: Path, record: KernelRecord) -> None:
        self.directory = directory
        self.record = record

    @property
    def vmlinux(self) -> Path:
        """The kernel, not compressed."""
        return self.directory / "vmlinux"

    @property
    def initrd(self) -> Path:
        """Its first root: modules, busybox and the guest's own scripts."""
        return self.directory / "initrd"


def find_kernel(state_dir: Path, digest: str = "current") -> Kernel | None:
    """The kernel in force, or the one of a digest; None when it is not there."""
    try:
        directory = (state_dir / "runtime" / HOME / digest).resolve(strict=True)
        record = KernelRecord.model_validate_json((directory / "kernel.json").read_text())
    except (OSError, ValidationError):
        return None
    kernel = Kernel(directory, record)
    return kernel if kernel.vmlinux.is_file() and kernel.initrd.is_file() else None
