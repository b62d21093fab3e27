"""Archives of workspaces: made, listed, downloaded, put back, deleted (spec 4.8).

They outlive their workspace: those of a deleted one are found by its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from bastide.depot.contract import Depot, DepotError
from bastide.domain.archive import (
    SHOWN,
    STORED,
    ArchiveState,
    CreateArchive,
    RestoreArchive,
    is_version,
    next_version,
)
from bastide.domain.errors import (
    ArchiveLimitReached,
    Conflict,
    StorageUnavailable,
)
from bastide.domain.identifiers import ARCHIVE, new_id
from bastide.domain.machine import MachineState
from bastide.domain.operation import UNFINISHED, OperationKind
from bastide.services.archive_files import ArchiveFiles
from bastide.services.archive_records import (
    ArchiveView,
    archive_of,
    archive_view_of,
    check_ready,
    check_unread,
    unknown,
    workspace_of,
)
from bastide.services.caller import Caller
from bastide.services.machines import MIB
from bastide.services.queue import Queue
from bastide.services.views import WorkspaceView, view_of
from bastide.settings import Archives as Settings
from bastide.store.archives import Archives
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.operations import Operations
from bastide.store.tables import Archive, Operation, Workspace
from bastide.store.workspaces import Workspaces

_ATTEMPTS = 4
_CANCELLED_WITHIN = 60.0
"""Seconds in which an archive that is being made ends once it is deleted."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A workspace that takes up an archive, and the operation of it.

    `files` is how many files and links its agent counted; None while that goes on.
    """

    archive: Archive
    operation: Operation
    files: int | None = None


class ArchiveService:
    """Synchronous calls: the answer comes when the file is stored, or back."""

    def __init__(
        self,
        database: Database,
        queue: Queue,
        depot: Depot,
        files: ArchiveFiles,
        settings: Settings,
    ) -> None:
        self._database = database
        self._queue = queue
        self._depot = depot
        self._files = files
        self._settings = settings

    async def create(self, caller: Caller, reference: str, body: CreateArchive) -> ArchiveView:
        """Archive its files; it may run meanwhile, or be stopped.

        Raises:
            Conflict: it is paused, was destroyed, or something else is going on; the version is
                taken; the archive is too large.
            ValidationFailed: one of the paths is not there.
            ArchiveLimitReached: there are as many as there may be.
            StorageUnavailable: it cannot be stored.
            VmUnavailable: the workspace broke off.
        """
        archive, operation = await self._begin(caller, reference, body)
        if not body.wait:
            return ArchiveView(archive, operation)
        await self._queue.success(operation)
        return await self.get(caller, archive.workspace_id, archive.version)

    async def _begin(
        self, caller: Caller, reference: str, body: CreateArchive
    ) -> tuple[Archive, Operation]:
        """Queue the operation and insert the row, in one transaction with the decision."""
        for _ in range(_ATTEMPTS):
            try:
                async with self._database.write() as session:
                    found = await Workspaces(session).find(caller.account_id, reference)
                    row = caller.require(found)
                    most = await self._most_bytes(session, row)
                    archive = await self._insert(session, row, body)
                    params = {"archive": archive.id, "most_bytes": most}
                    view, operation = await self._request(
                        session, row, OperationKind.ARCHIVE, params
                    )
                    archive.operation_id = operation.id
            except Duplicate:
                continue
            self._queue.announce(operation, view)
            return archive, operation
        raise Conflict("The workspace is changing too fast; try again.")

    async def _request(
        self,
        session: AsyncSession,
        row: Workspace,
        kind: OperationKind,
        params: Mapping[str, Any],
    ) -> tuple[WorkspaceView, Operation]:
        """Queue an operation on the files of a workspace; the view it was judged by.

        Raises:
            Conflict: the state of the workspace forbids it.
        """
        view = await view_of(session, row)
        resting = _consistency(row) == "stopped"
        operation = await self._queue.request(
            session, view, kind, params={**params, "resting": resting}
        )
        if operation is None:  # there always is something to do
            raise Conflict("This cannot be done now; try again.")
        return view, operation

    async def _insert(self, session: AsyncSession, row: Workspace, body: CreateArchive) -> Archive:
        """The row of a new archive; a failed one of that version gives way to it."""
        archives = Archives(session)
        version = body.version or next_version(await archives.versions(row.id))
        known = await archives.find(row.id, version)
        if known is not None and known.state is ArchiveState.FAILED:
            await archives.remove(known.id)
        elif known is not None:
            stored = "" if known.state in SHOWN else " (it is listed no more, its file is stored)"
            raise Conflict(
                f"There is an archive of version {version} already{stored}. Choose another "
                "version, or delete it with delete_file=true first.",
                details={"field": "version"},
            )
        archive_id = new_id(ARCHIVE)
        return await archives.insert(
            Archive(
                id=archive_id,
                account_id=row.account_id,
                workspace_id=row.id,
                version=version,
                file=f"{archive_id}.tar.zst",
                vm_paths=body.paths,
                exclude_vm_paths=body.exclude_vm_paths or [],
                image=row.image,
                disk_mb=row.disk_mb,
                consistency=_consistency(row),
            )
        )

    async def _most_bytes(self, session: AsyncSession, row: Workspace) -> int:
        """How large one more archive may be.

        Raises:
            ArchiveLimitReached: there may be none.
        """
        archives = Archives(session)
        count = len(await archives.of(row.id, STORED))
        if count >= self._settings.max_per_workspace:
            raise ArchiveLimitReached(
                f"The workspace has {count} archives, as many as it may have. Delete some with "
                "delete_file=true.",
                current=count,
                maximum=self._settings.max_per_workspace,
            )
        used = await archives.stored_bytes(row.account_id)
        left = self._settings.account_mb * MIB - used
        if left <= 0:
            raise ArchiveLimitReached(
                f"The archives of the account take {used // MIB} MiB, as much as they may. "
                "Delete some with delete_file=true.",
                current=used // MIB,
                maximum=self._settings.account_mb,
            )
        return min(left, self._settings.max_mb * MIB)

    async def list(self, caller: Caller, reference: str) -> Sequence[ArchiveView]:
        """Those of a workspace, which may be deleted; newest first."""
        async with self._database.read() as session:
            row = await workspace_of(session, caller, reference)
            return [
                await archive_view_of(session, archive)
                for archive in await Archives(session).of(row.id)
            ]

    async def page(
        self, caller: Caller, *, page: int, limit: int, namespace: str | None = None
    ) -> tuple[Sequence[tuple[ArchiveView, Workspace]], int]:
        """One page of all that the caller reaches, newest first, and how many there are in all.

        Each with its workspace, which may be deleted.
        """
        which = caller.visible(namespace)
        async with self._database.read() as session:
            archives = Archives(session)
            found = await archives.page(which, limit=limit, offset=(page - 1) * limit)
            views = [(await archive_view_of(session, one), row) for one, row in found]
            return views, await archives.count(which)

    async def get(self, caller: Caller, reference: str, version: str) -> ArchiveView:
        """One version.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read() as session:
            row = await workspace_of(session, caller, reference)
            return await archive_view_of(session, await archive_of(session, row, version))

    async def open(
        self, caller: Caller, reference: str, version: str
    ) -> tuple[ArchiveView, int, Depot]:
        """A stored file: its archive, its bytes, and where to read it.

        Raises:
            NotFound, Conflict: there is none, or it is not ready.
            StorageUnavailable: it cannot be read now.
        """
        view = await self.get(caller, reference, version)
        check_ready(view.row)
        try:
            size = await self._depot.size(view.row.file)
        except DepotError as error:
            raise StorageUnavailable(f"{error}.") from error
        if size is None or size != view.row.size_bytes:
            raise StorageUnavailable(
                f"The file of version {view.row.version} is not there any more, or not whole: "
                "it was changed where archives are kept. Delete the archive."
            )
        return view, size, self._depot

    async def restore(
        self, caller: Caller, reference: str, version: str, body: RestoreArchive
    ) -> Restored:
        """Put the files of an archive over those of its workspace, or of another one.

        Files that it does not have stay. The workspace may run, or be stopped. Unless the body
        says otherwise it waits for the end.

        Raises:
            NotFound: there is no such archive or workspace.
            Conflict: the archive is not ready; the workspace is paused, or busy; it is full.
            StorageUnavailable: the file cannot be read.
            VmUnavailable: it broke off; some of the files may be there.
        """
        for _ in range(_ATTEMPTS):
            try:
                async with self._database.write() as session:
                    source = await workspace_of(session, caller, reference)
                    archive = await archive_of(session, source, version, hold=True)
                    check_ready(archive)
                    wanted = body.workspace or source.id
                    row = caller.require(await Workspaces(session).find(caller.account_id, wanted))
                    params = {"archive": archive.id, "dest": body.dest}
                    view, operation = await self._request(
                        session, row, OperationKind.UNPACK, params
                    )
            except Duplicate:
                continue
            self._queue.announce(operation, view)
            if not body.wait:
                return Restored(archive, operation)
            ended = (await self._queue.success(operation)).operation
            return Restored(archive, ended, int(ended.params.get("files", 0)))
        raise Conflict("The workspace is changing too fast; try again.")

    async def delete(self, caller: Caller, reference: str, version: str, *, file: bool) -> Archive:
        """Forget an archive; `file` removes what is stored as well.

        Without it the file stays and counts on; a later deletion with it still finds the version.
        One that is being made is given up, and nothing of it stays.

        Raises:
            NotFound: there is none.
            Conflict: it is being put into a workspace.
            StorageUnavailable: the file could not be removed yet; that is tried again.
        """
        async with self._database.write() as session:
            row = await workspace_of(session, caller, reference)
            archives = Archives(session)
            archive = (
                await archives.find(row.id, version, hold=True) if is_version(version) else None
            )
            known = SHOWN if not file else (*SHOWN, ArchiveState.DETACHED)
            if archive is None or archive.state not in known:
                raise unknown(version)
            await check_unread(session, caller, archive)
            await self._mark(session, archive, file=file)
        await self._finish([archive])
        return archive

    async def delete_all(self, caller: Caller, reference: str, *, files: bool) -> int:
        """Forget all archives of a workspace, as `delete` does; how many. None is fine.

        Raises:
            Conflict: one of them is being put into a workspace; all are as they were.
            StorageUnavailable: some files could not be removed yet; that is tried again.
        """
        async with self._database.write() as session:
            row = await workspace_of(session, caller, reference)
            states = SHOWN if not files else (*SHOWN, ArchiveState.DETACHED)
            archives = await Archives(session).of(row.id, states, hold=True)
            for archive in archives:
                await check_unread(session, caller, archive)
                await self._mark(session, archive, file=files)
        await self._finish(archives)
        return len(archives)

    async def _mark(self, session: AsyncSession, archive: Archive, *, file: bool) -> None:
        """Write what becomes of an archive; its file goes after the commit."""
        keep = archive.state is ArchiveState.READY and not file
        archive.state = ArchiveState.DETACHED if keep else ArchiveState.REMOVING
        await session.flush()

    async def _finish(self, archives: Sequence[Archive]) -> None:
        """Remove the files of those that are marked for it, once nobody writes them any more."""
        failed: DepotError | None = None
        for archive in archives:
            if archive.state is not ArchiveState.REMOVING:
                continue
            if archive.operation_id is not None:
                await self._ended(archive.operation_id)
            try:
                await self._files.drop(archive)
            except DepotError as error:
                failed = error
        if failed is not None:
            raise StorageUnavailable(
                f"The archive is deleted, and its file goes as soon as that is possible: {failed}."
            ) from failed

    async def _ended(self, operation_id: str) -> None:
        """Wait for an operation, if there still is one; it looks often whether it is wanted."""
        async with self._database.read() as session:
            operation = await Operations(session).get(operation_id)
        if operation is not None and operation.state in UNFINISHED:
            await self._queue.finished(operation_id, _CANCELLED_WITHIN)


def _consistency(row: Workspace) -> str:
    """Whether its files may change while they are read."""
    return "running" if row.observed_state == MachineState.RUNNING else "stopped"
