"""Archives: versioned backups of a workspace's files (spec control-plane 4.8)."""

from __future__ import annotations

import posixpath
import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from bastide.domain.text import plain_text

WHOLE = ("/",)
"""What is archived when no paths are given: every file of the workspace."""
NO_DISK = frozenset({"proc", "sys", "dev", "run", ".bastide"})
"""Directories of every workspace that are not on its disk."""
MOST_PATHS = 200
_LONGEST = 4096
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MOST_NUMBER = 10**9


class ArchiveState(StrEnum):
    """How far it is. `detached` ones are listed no more, and their files still stored."""

    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"
    DETACHED = "detached"
    REMOVING = "removing"


SHOWN = (ArchiveState.CREATING, ArchiveState.READY, ArchiveState.FAILED)
STORED = (ArchiveState.CREATING, ArchiveState.READY, ArchiveState.DETACHED)


def is_version(text: str) -> bool:
    """Whether an archive can have this version."""
    return _VERSION.fullmatch(text) is not None


def next_version(taken: list[str]) -> str:
    """The number after the largest one."""
    numbers = (int(text) for text in taken if text.isdigit() and len(text) <= 10)
    return str(max(numbers, default=0) + 1)


def _version(value: Any) -> Any:
    """A number or a word; both are kept as text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_NUMBER:
        return str(value)
    if isinstance(value, str) and is_version(value):
        return value
    raise ValueError(
        "must be a whole number, or up to 64 letters, digits, dots, dashes and underscores"
    )


def _path(value: Any) -> Any:
    """A path in the workspace, without a slash at its end."""
    if not isinstance(value, str) or not value.startswith("/") or len(value) > _LONGEST:
        raise ValueError('must be a path that begins with "/", of at most 4096 characters')
    if ".." in plain_text(value).split("/"):
        raise ValueError('must not hold ".."')
    return "/" + posixpath.normpath(value).lstrip("/")


def _exclude(value: Any) -> Any:
    """A path, or the name or pattern of entries anywhere."""
    if not isinstance(value, str) or not value.strip("/") or len(value) > _LONGEST:
        raise ValueError('must be a path such as "/var/cache", or a name such as "node_modules"')
    return plain_text(value)


def _dest(value: Any) -> Any:
    """A directory for files: nothing that each boot makes anew, or the kernel makes up."""
    path = str(_path(value))
    top = path.split("/")[1]
    if top in NO_DISK:
        raise ValueError(
            f"must be a directory on the workspace's disk; /{top} is not on it, and what was put "
            "there would be lost"
        )
    return path


Version = Annotated[str, BeforeValidator(_version)]
Path = Annotated[str, BeforeValidator(_path)]
Destination = Annotated[str, BeforeValidator(_dest)]
Exclude = Annotated[str, BeforeValidator(_exclude)]


def _tar(value: Any) -> Any:
    if value != "tar":
        raise ValueError('must be "tar"; the file is compressed with zstd')
    return value


class CreateArchive(BaseModel):
    """Body of POST /workspace/:id/archives; without one everything is archived."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Version | None = Field(None, description="absent: the next number")
    format: Annotated[str | None, BeforeValidator(lambda v: v if v is None else _tar(v))] = None
    vm_paths: list[Path] | None = Field(None, max_length=MOST_PATHS)
    exclude_vm_paths: list[Exclude] | None = Field(None, max_length=MOST_PATHS)
    wait: StrictBool = Field(default=True, description="answer when it is done")

    @property
    def paths(self) -> list[str]:
        """What to archive."""
        return list(dict.fromkeys(self.vm_paths or WHOLE))


class RestoreArchive(BaseModel):
    """Body of POST /workspace/:id/archives/:version/restore."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    workspace: str | None = Field(
        None, min_length=1, max_length=128, description="another workspace than its own"
    )
    dest: Destination = Field("/", description="directory that its paths are put below")
    wait: StrictBool = Field(default=True, description="answer when it is done")


class ArchiveSource(BaseModel):
    """`config.archive` at creation: the workspace begins with these files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: str = Field(
        min_length=1,
        max_length=128,
        validation_alias=AliasChoices("workspace", "workspace_id"),
        description="id of the workspace it was made of, which may be deleted; or its slug",
    )
    version: Version
