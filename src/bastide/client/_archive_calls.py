"""The calls about archives, and what the API answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from bastide.client._call import LONG_TIMEOUT, Call, given, part
from bastide.client._errors import ArchiveFailed, WaitTimeout, kind_of
from bastide.client._models import Model, Operation, Refusal

Version = int | str


class Fault(Model):
    """Why an archive could not be made."""

    code: str = "ARCHIVE_FAILED"
    message: str = ""


class Archive(Model):
    """A backup of a workspace's files: a tar compressed with zstd.

    `size_bytes` and `sha256` are of the compressed file. `status` is `creating`, `ready` or
    `failed`, `consistency` what the workspace was meanwhile: `running` or `stopped`. The fields
    of its workspace are told by the list of all.
    """

    version: Version
    status: str
    workspace_id: str
    name: str = ""
    size_bytes: int | None = None
    tar_bytes: int | None = None
    sha256: str | None = None
    vm_paths: list[str] = Field(default_factory=list)
    exclude_vm_paths: list[str] = Field(default_factory=list)
    consistency: str = ""
    image: str = ""
    created_at: datetime | None = None
    completed_at: datetime | None = None
    message: str | None = None
    error: Fault | None = None
    workspace_name: str | None = None
    workspace_slug: str | None = None
    workspace_deleted: bool | None = None


class ArchivePage(Model):
    """One page of the archives of all workspaces, and how many there are in all."""

    archives: list[Archive] = Field(default_factory=list)
    total: int = 0
    page: int = 1
    limit: int = 0


def create(
    workspace: str,
    version: Version | None,
    paths: Sequence[str] | None,
    excludes: Sequence[str] | None,
) -> Call[Archive]:
    """Begin to make an archive."""
    wanted = {
        "version": version,
        "vm_paths": None if paths is None else list(paths),
        "exclude_vm_paths": None if excludes is None else list(excludes),
    }
    body = {**given(wanted), "wait": False}
    return Call("POST", _path(workspace), _archive, json=body, repeatable=False)


def list_(workspace: str) -> Call[list[Archive]]:
    """Those of a workspace."""
    return Call(
        "GET",
        _path(workspace),
        lambda body: [Archive.model_validate(one) for one in body["archives"]],
    )


def get(workspace: str, version: Version) -> Call[Archive]:
    """One version."""
    return Call("GET", _path(workspace, version), _archive)


def all_(page: int, limit: int, namespace: str | None) -> Call[ArchivePage]:
    """One page of those of all workspaces."""
    params = {"page": page, "limit": limit, "namespace": namespace}
    return Call("GET", "/archives", ArchivePage.model_validate, params=params)


def restore(
    workspace: str, version: Version, into: str | None, dest: str | None
) -> Call[Operation]:
    """Begin to put the files of one into a workspace."""
    return Call(
        "POST",
        f"{_path(workspace, version)}/restore",
        _operation,
        json={**given({"workspace": into, "dest": dest}), "wait": False},
        repeatable=False,
    )


def operation(begun: Operation) -> Call[Operation]:
    """How far it is by now."""
    return Call(
        "GET", f"/workspace/{part(begun.workspace_id)}/operations/{part(begun.id)}", _operation
    )


def restored(now: Operation) -> int | None:
    """How many files and links were restored; None while that goes on.

    Raises:
        ApiError: it failed; what came before stays.
    """
    if now.state == "failed":
        fault = now.error or Refusal()
        raise kind_of(fault.status, fault.code)(
            fault.message, status=fault.status, code=fault.code, details=fault.details
        )
    return (now.files_restored or 0) if now.state == "done" else None


def delete(workspace: str, version: Version, *, file: bool) -> Call[None]:
    """Delete one."""
    return Call(
        "DELETE",
        _path(workspace, version),
        lambda _: None,
        params={"delete_file": file},
        timeout=LONG_TIMEOUT,
    )


def delete_all(workspace: str, *, files: bool) -> Call[int]:
    """Delete all of a workspace."""
    return Call(
        "DELETE",
        _path(workspace),
        lambda body: int(body["deleted"]),
        params={"delete_files": files},
        timeout=LONG_TIMEOUT,
    )


def download(workspace: str, version: Version, start: int, etag: str | None) -> Call[None]:
    """The file, from one of its bytes on."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and etag is not None:
        headers["If-Range"] = f'"{etag}"'
    return Call("GET", f"{_path(workspace, version)}/download", lambda _: None, headers=headers)


def _path(workspace: str, version: Version | None = None) -> str:
    tail = "" if version is None else f"/{part(str(version))}"
    return f"/workspace/{part(workspace)}/archives{tail}"


def _operation(body: Any) -> Operation:
    return Operation.model_validate(body["operation"])


def _archive(body: Any) -> Archive:
    return Archive.model_validate(body["archive"])


def settled(archive: Archive) -> bool:
    """Whether it is ready.

    Raises:
        ArchiveFailed: it never will be.
    """
    if archive.status == "failed":
        fault = archive.error or Fault()
        raise ArchiveFailed(fault.code, fault.message or "the archive could not be made")
    return archive.status == "ready"


def late(archive: Archive, seconds: float) -> WaitTimeout:
    """It takes longer than the caller waits."""
    return WaitTimeout(f"archive {archive.version} is not ready after {seconds:.0f} seconds")


def unfinished(now: Operation, seconds: float) -> WaitTimeout:
    """A restore takes longer than the caller waits."""
    return WaitTimeout(f"{now.workspace_id} is not restored after {seconds:.0f} seconds")
