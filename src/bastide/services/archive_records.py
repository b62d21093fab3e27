"""The records of archives, as far as a caller reaches them, and who reads their files.

Who begins to read one holds its row, and so does who deletes it: of both that come at once the
second sees what the first has done.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.archive import SHOWN, ArchiveSource, ArchiveState, is_version
from bastide.domain.errors import Conflict, NotFound
from bastide.services.caller import Caller
from bastide.store.archives import Archives
from bastide.store.operations import Operations
from bastide.store.tables import Archive, Operation, Workspace
from bastide.store.workspaces import Workspaces


@dataclass(frozen=True, slots=True)
class ArchiveView:
    """An archive, and the operation that makes it while it is being made."""

    row: Archive
    making: Operation | None = None


async def archive_view_of(session: AsyncSession, archive: Archive) -> ArchiveView:
    """The view of one archive."""
    if archive.state is not ArchiveState.CREATING or archive.operation_id is None:
        return ArchiveView(archive)
    return ArchiveView(archive, await Operations(session).get(archive.operation_id))


async def workspace_of(session: AsyncSession, caller: Caller, reference: str) -> Workspace:
    """A workspace by id or slug, or a deleted one by id.

    Raises:
        NotFound, Forbidden: there is none that the caller reaches.
    """
    workspaces = Workspaces(session)
    found = await workspaces.find(caller.account_id, reference)
    return caller.require(found or await workspaces.find_deleted(caller.account_id, reference))


async def archive_of(
    session: AsyncSession, row: Workspace, version: str, *, hold: bool = False
) -> Archive:
    """One version; `hold` keeps its row until the end of the transaction.

    Raises:
        NotFound: there is none.
    """
    archives = Archives(session)
    found = await archives.find(row.id, version, hold=hold) if is_version(version) else None
    if found is None or found.state not in SHOWN:
        raise unknown(version)
    return found


async def source_of(session: AsyncSession, caller: Caller, source: ArchiveSource) -> Archive:
    """The archive that a new workspace begins with.

    Raises:
        NotFound, Forbidden, Conflict: there is none that the caller reaches, or it is not ready.
    """
    row = await workspace_of(session, caller, source.workspace)
    archive = await archive_of(session, row, source.version)
    check_ready(archive)
    return archive


async def hold_source(session: AsyncSession, archive_id: str) -> None:
    """See that an archive is still there, for an operation of this transaction that reads it.

    Raises:
        Conflict: it was deleted meanwhile.
    """
    archive = await Archives(session).get(archive_id, hold=True)
    if archive is None or archive.state is not ArchiveState.READY:
        raise Conflict(
            "The archive that the workspace was to begin with was deleted. Create a workspace "
            "with another one.",
            details={"field": "config.archive"},
        )


async def check_unread(session: AsyncSession, caller: Caller, archive: Archive) -> None:
    """See that nothing reads an archive whose row is held.

    Raises:
        Conflict: a restore or a creation does; it names the workspaces that the caller sees.
    """
    workspaces = Workspaces(session)
    readers = []
    for operation in await Operations(session).reading(archive.id):
        row = await workspaces.get(operation.workspace_id)
        if row is not None:
            readers.append(row)
    if not readers:
        return
    seen = [row for row in readers if caller.may_see(row)]
    names = [f"{row.slug or row.name} ({row.id})" for row in seen]
    if len(seen) < len(readers):
        names.append("another workspace" if len(readers) == len(seen) + 1 else "other workspaces")
    raise Conflict(
        f"Version {archive.version} is being put into {' and '.join(names)}. Delete it once that "
        "is done, or delete that workspace first.",
        state="in_use",
        details={"version": archive.version, "workspaces": [row.id for row in seen]},
    )


def check_ready(archive: Archive) -> None:
    """See that an archive has files.

    Raises:
        Conflict: it is being made, or could not be made.
    """
    if archive.state is not ArchiveState.READY:
        raise Conflict(
            f"Version {archive.version} is {archive.state.value}, only a ready one has files.",
            state=archive.state.value,
        )


def unknown(version: str) -> NotFound:
    """There is no such version."""
    return NotFound(
        f"There is no archive of version {version[:64]!r}. "
        "List them with GET /workspace/:id/archives."
    )
