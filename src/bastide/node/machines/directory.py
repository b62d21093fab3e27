"""The directory of one boot below `run_dir`: what is in it, and how it goes away."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bastide.node.mounts import mounted
from bastide.node.store import BootRecord, read, write

_MOST_CONSOLE = 64 * 1024


@dataclass(frozen=True)
class BootDirectory:
    """Names below `path`. Everyone may pass through it (the container's first process must);
    what is not meant for the machine is 0600.
    """  # noqa: D205 - one thought

    path: Path

    @property
    def disk(self) -> Path:
        """Where the disk is mounted."""
        return self.path / "disk"

    @property
    def config(self) -> Path:
        """The OCI configuration."""
        return self.path / "config.json"

    @property
    def resolv_conf(self) -> Path:
        """Bound to /etc/resolv.conf."""
        return self.path / "resolv.conf"

    @property
    def hosts(self) -> Path:
        """Bound to /etc/hosts."""
        return self.path / "hosts"

    @property
    def hostname(self) -> Path:
        """Bound to /etc/hostname."""
        return self.path / "hostname"

    def make(self) -> None:
        """Make it, empty."""
        self.path.mkdir(mode=0o711, parents=True, exist_ok=True)

    def names(self, hostname: str, address: str | None, resolvers: tuple[str, ...]) -> None:
        """Write the files a machine finds its names with."""
        self.resolv_conf.write_text("".join(f"nameserver {server}\n" for server in resolvers))
        own = f"{address} {hostname}\n" if address else ""
        self.hosts.write_text(f"127.0.0.1 localhost\n{own}")
        self.hostname.write_text(f"{hostname}\n")
        for path in (self.resolv_conf, self.hosts, self.hostname):
            path.chmod(0o644)

    def configure(self, configuration: dict[str, Any]) -> None:
        """Write the OCI configuration."""
        _private(self.config, json.dumps(configuration).encode())

    def keep_console(self, output: bytes) -> None:
        """Keep what the machine printed."""
        _private(self.path / "console.log", output[-_MOST_CONSOLE:])

    def console(self) -> bytes:
        """What it printed, empty when nothing is kept."""
        with suppress(OSError), (self.path / "console.log").open("rb") as file:
            return file.read(_MOST_CONSOLE)
        return b""

    def record(self, record: BootRecord) -> None:
        """Keep the record of this boot."""
        write(self.path / "boot.json", record)

    def recorded(self) -> BootRecord | None:
        """The record of this boot, when there is one."""
        return read(BootRecord, self.path / "boot.json")

    def remove(self) -> bool:
        """Remove it; whether it is gone. Never descends into anything that is mounted."""
        if not self.path.exists():
            return True
        if mounted(self.path):
            return False
        with os.scandir(self.path) as entries:
            for entry in entries:
                # only our own files and empty mount points are here: nothing recursive
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        Path(entry.path).rmdir()
                    else:
                        Path(entry.path).unlink()
        with suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()


def _private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
