"""Credentials of this server for registries, given by its operator; root's alone."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from bastide.domain.machine import RegistryAuth
from bastide.node.store import read, write


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    registries: dict[str, RegistryAuth] = Field(default_factory=dict)


class Logins:
    """The credentials in one file (0600)."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self, registry: str) -> RegistryAuth | None:
        """The credentials for a registry (`host` or `host:port`), if there are any."""
        return self._read().registries.get(registry)

    def registries(self) -> list[str]:
        """The registries this server is logged in to."""
        return sorted(self._read().registries)

    def keep(self, registry: str, auth: RegistryAuth) -> None:
        """Keep credentials, in the place of earlier ones. Blocks."""
        known = self._read()
        known.registries[registry] = auth
        self._write(known)

    def forget(self, registry: str) -> None:
        """Forget the credentials for a registry. Blocks."""
        known = self._read()
        if known.registries.pop(registry, None) is not None:
            self._write(known)

    def _read(self) -> _File:
        return read(_File, self._file) or _File()

    def _write(self, content: _File) -> None:
        self._file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write(self._file, content)
