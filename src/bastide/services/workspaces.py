"""Workspaces: create, list, get, update, delete (spec 4.1)."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.archive import ArchiveSource
from bastide.domain.config import Config
from bastide.domain.creation import CreateWorkspace, UpdateWorkspace
from bastide.domain.errors import Conflict, ValidationFailed
from bastide.domain.lifecycle import DesiredState, Mode
from bastide.domain.machine import ImageInfo
from bastide.domain.names import new_name
from bastide.domain.operation import OperationKind, OperationState
from bastide.domain.restart import RestartPolicy
from bastide.domain.slug import slug_of, vary_slug
from bastide.domain.workspace import Status
from bastide.engine.contract import EngineError, EngineUnavailable
from bastide.services.allowance import Allowance, Sizes
from bastide.services.archive_records import hold_source, source_of
from bastide.services.caller import Caller
from bastide.services.catalogue import Catalogue
from bastide.services.draft import Draft
from bastide.services.failures import engine_failures, failure_of_operation
from bastide.services.policy import DARK, network_changes
from bastide.services.queue import Queue
from bastide.services.reach import Reach, changed_network
from bastide.services.views import WorkspaceView, find_view, view_of, views_of
from bastide.store.database import Database
from bastide.store.errors import Duplicate
from bastide.store.tables import Archive, Workspace
from bastide.store.workspaces import Filter, Workspaces

WAIT_READY = 600.0
REFUSED = "validation_error"
"""The engine's code for a document that asks for what cannot be."""
_ATTEMPTS = 8


class WorkspaceService:
    """The records of workspaces; pipelines do what takes long."""

    def __init__(
        self,
        database: Database,
        queue: Queue,
        catalogue: Catalogue,
        allowance: Allowance,
        reach: Reach,
    ) -> None:
        self._database = database
        self._queue = queue
        self._catalogue = catalogue
        self._allowance = allowance
        self._reach = reach

    async def create(self, caller: Caller, body: CreateWorkspace) -> tuple[WorkspaceView, bool]:
        """A new workspace, or the one an earlier request with the same key made.

        Answers at once unless `wait_ready` is set. The second value is whether it is new.

        Raises:
            ValidationFailed: unknown image, or a size out of bounds.
            LimitReached: the account has as many as it may have.
            Conflict: the slug is taken, or the key was used for another body.
            CreateFailed: `wait_ready` and the creation failed.
            VmUnavailable: the engine is away.
        """
        draft = Draft(body, caller.account_id, caller.namespace_for_new(body.namespace))
        lease = body.lease
        await self._catalogue.check_action(lease.action if lease else None, "config.ttl_action")
        await self._check_driver(caller, draft.config)
        known = await self._repeated(caller, draft)
        if known is None:
            source = await self._source(caller, draft.config.archive)
            wanted = body.image or (source.image if source is not None else None)
            image = await self._catalogue.resolve(wanted)
            view, new = await self._insert(caller, draft, image, source)
        else:
            view, new = known, False
        if body.wait_ready and view.provision is not None:
            ended = await self._queue.finished(view.provision.id, WAIT_READY)
            view = await self.get(caller, view.row.id)
            if ended.operation.state is OperationState.FAILED:
                raise failure_of_operation(ended.operation)
        return view, new

    async def _check_driver(self, caller: Caller, config: Config) -> None:
        """What runs a workspace is the operator's choice."""
        if config.driver is not None:
            caller.require_admin()
            await self._catalogue.check_driver(config.driver)

    async def get(self, caller: Caller, reference: str) -> WorkspaceView:
        """One workspace by id or slug.

        Raises:
            NotFound, Forbidden: none that the caller reaches.
        """
        async with self._database.read() as session:
            return await find_view(session, caller, reference)

    async def page(
        self,
        caller: Caller,
        *,
        page: int,
        limit: int,
        status: Status | None = None,
        mode: Mode | None = None,
        namespace: str | None = None,
    ) -> tuple[list[WorkspaceView], int]:
        """One page, newest first, and how many there are in all."""
        visible = caller.visible(namespace)
        which = Filter(visible.account_id, visible.namespace, visible.ids, mode)
        offset = (page - 1) * limit
        async with self._database.read() as session:
            workspaces = Workspaces(session)
            if status is None:
                rows = await workspaces.page(which, limit=limit, offset=offset)
                return await views_of(session, rows), await workspaces.count(which)
            # The status shown depends on operations as well, so it is chosen after reading.
            views = await views_of(session, await workspaces.page(which))
        found = [view for view in views if view.condition.status is status]
        return found[offset : offset + limit], len(found)

    async def update(self, caller: Caller, reference: str, body: UpdateWorkspace) -> WorkspaceView:
        """Change what was given. Sizes, command and environment count from the next start.

        Raises:
            Conflict: the slug is taken, or the workspace is being deleted.
            ValidationFailed: a smaller disk, or a field that belongs to the lifecycle.
            VmUnavailable: the network change is stored and not yet in force.
        """
        view = await self.get(caller, reference)
        config = body.config or Config()
        await self._check_driver(caller, config)
        image = await self._catalogue.resolve(view.row.image) if _resizes(config) else None
        for _ in range(_ATTEMPTS):
            try:
                async with self._database.write() as session:
                    workspaces = Workspaces(session)
                    row = caller.require(await workspaces.get(view.row.id))
                    if row.desired_state is DesiredState.DELETED:
                        raise Conflict("The workspace is being deleted.", state="deleting")
                    values = await self._changes(
                        session, caller, row, body, config=config, image=image
                    )
                    seen = {"updated_at": row.updated_at}
                    done = not values or await workspaces.update(row.id, values, expected=seen)
            except Duplicate:
                raise _slug_taken(body.slug) from None
            if done:
                break
        else:
            raise Conflict("The workspace is changing too fast; try again.")
        if "network" in values:
            await self._put_in_force(row)
        return await self.get(caller, view.row.id)

    async def _put_in_force(self, before: Workspace) -> None:
        """Put a changed policy in force; one that the engine refuses is taken back.

        Raises:
            ValidationFailed: it was refused; row and firewall are as before.
            VmUnavailable: the engine is away; it is stored, and comes into force later.
        """
        with engine_failures():
            try:
                await self._reach.put_in_force(before.id)
            except EngineUnavailable:
                raise
            except EngineError as error:
                if error.code != REFUSED:
                    raise
                await self._reach.take_back(before)
                raise ValidationFailed("network_config", f"{error.message}.") from error

    async def delete(self, caller: Caller, reference: str) -> WorkspaceView:
        """Begin to delete, from whatever state; repeating is harmless."""
        for _ in range(_ATTEMPTS):
            view = await self.get(caller, reference)
            try:
                async with self._database.write() as session:
                    row = caller.require(await Workspaces(session).get(view.row.id))
                    view = await view_of(session, row)
                    operation = await self._queue.request(session, view, OperationKind.DELETE)
            except Duplicate:
                continue
            self._queue.announce(operation, view)
            return view
        raise Conflict("The workspace is changing too fast; try again.")

    async def _repeated(self, caller: Caller, draft: Draft) -> WorkspaceView | None:
        """What an earlier request with the same idempotency key made."""
        key = draft.body.idempotency_key
        if key is None:
            return None
        async with self._database.read() as session:
            row = await Workspaces(session).by_idempotency_key(caller.account_id, key)
            if row is None:
                return None
            view = await view_of(session, caller.require(row))
        made = view.provision.params.get("digest") if view.provision else None
        if made != draft.digest:
            raise Conflict(
                f"The idempotency_key was used for another workspace ({row.id}) with another "
                "body. Use a new key, or send the same body.",
                details={"field": "idempotency_key", "workspace_id": row.id},
            )
        return view

    async def _source(self, caller: Caller, wanted: ArchiveSource | None) -> Archive | None:
        """The archive a new workspace begins with."""
        if wanted is None:
            return None
        async with self._database.read() as session:
            return await source_of(session, caller, wanted)

    async def _insert(
        self, caller: Caller, draft: Draft, image: ImageInfo, source: Archive | None
    ) -> tuple[WorkspaceView, bool]:
        """Commit row and operation in one transaction, limits counted in the same one."""
        sized = _sized(draft.config, source)
        params = {"digest": draft.digest} | ({} if source is None else {"archive": source.id})
        name = draft.body.name or new_name()
        wanted = draft.body.slug
        slug = wanted or slug_of(name)
        for _ in range(_ATTEMPTS):
            try:
                async with self._database.write() as session:
                    if source is not None:
                        await hold_source(session, source.id)
                    limits = await self._allowance.count_new(session, caller.account_id)
                    sizes = self._allowance.sizes(sized, image, limits)
                    if wanted is None and await _taken(session, caller.account_id, slug):
                        slug = vary_slug(slug)
                    network = await network_changes(session, caller, draft.config.network)
                    row = await Workspaces(session).insert(
                        draft.row(name, slug, image, sizes, {**DARK, **network})
                    )
                    operation = await self._queue.insert(
                        session, row.id, OperationKind.PROVISION, params
                    )
            except Duplicate as error:
                known = await self._repeated(caller, draft)
                if known is not None:
                    return known, False
                if wanted is not None and "slug" in error.constraint:
                    raise _slug_taken(slug) from None
                if "ssh_id" not in error.constraint:
                    slug = vary_slug(slug)
                continue
            self._queue.announce(operation)
            return WorkspaceView(row, operation, operation), True
        raise _slug_taken(slug)

    async def _changes(
        self,
        session: AsyncSession,
        caller: Caller,
        row: Workspace,
        body: UpdateWorkspace,
        *,
        config: Config,
        image: ImageInfo | None,
    ) -> dict[str, Any]:
        """The columns that an update sets."""
        given = body.model_fields_set
        values: dict[str, Any] = {
            field: getattr(body, field) for field in ("slug", "logo") if field in given
        }
        if body.name:
            values["name"] = body.name
        if image is not None:
            if config.disk_mb is not None and config.disk_mb < row.disk_mb:
                raise ValidationFailed(
                    "config.disk_size_mb",
                    f"A disk can only grow: it has {row.disk_mb} MiB; ask for that or more.",
                    details={"current": row.disk_mb},
                )
            limits = await self._allowance.limits(session, row.account_id)
            now = Sizes(row.cpus, row.memory_mb, row.disk_mb)
            sizes = self._allowance.sizes(config, image, limits, now)
            values |= {"cpus": sizes.cpus, "memory_mb": sizes.memory_mb, "disk_mb": sizes.disk_mb}
        body.check_kept(mode=row.mode, image=row.image, namespace=row.namespace)
        _leave_lease(row, config)
        _leave_ssh(row, config)
        _leave_archive(config)
        if stored := config.given():
            values["config"] = {**row.config, **stored}
        if network := await network_changes(session, caller, config.network, row):
            values["network"] = changed_network(row, **network)
        return values


def _leave_archive(config: Config) -> None:
    """Refuse what only a creation can do."""
    if config.archive is not None:
        raise ValidationFailed(
            "config.archive",
            "An archive is put into a workspace that is there with POST "
            "/workspace/:id/archives/:version/restore.",
        )


def _sized(config: Config, source: Archive | None) -> Config:
    """Sizes for the files of an archive: unless it is given, the disk is as large as its was."""
    if source is None or config.disk_mb is not None:
        return config
    return config.model_copy(update={"disk_size_mb": source.disk_mb})


def _leave_ssh(row: Workspace, config: Config) -> None:
    """Refuse to switch SSH here: enabling it has an answer that is shown once."""
    if config.ssh_access is not None and config.ssh_access != row.ssh.get("enabled", False):
        raise ValidationFailed(
            "config.ssh_access",
            "SSH is switched with POST /workspace/:id/ssh/enable and …/ssh/disable.",
        )


def _leave_lease(row: Workspace, config: Config) -> None:
    """Refuse what only the lifecycle's own calls change.

    Raises:
        ValidationFailed: names the field and the call.
    """
    for field in ("ttl", "ttl_action", "remove_on_exit"):
        if getattr(config, field):
            raise ValidationFailed(
                f"config.{field}",
                f"{field} is changed with POST /workspace/:id/lifecycle/temporary or PUT "
                "/workspace/:id/lifecycle/ttl.",
            )
    if row.mode is Mode.TEMPORARY and config.restart_policy not in {None, RestartPolicy.NO}:
        raise ValidationFailed(
            "config.restart_policy",
            'restart_policy of a temporary workspace is locked to "no"; make it permanent with '
            "POST /workspace/:id/lifecycle/permanent.",
        )


def _resizes(config: Config) -> bool:
    return any(value is not None for value in (config.cpus, config.memory_mb, config.disk_mb))


async def _taken(session: AsyncSession, account_id: str, slug: str) -> bool:
    return await Workspaces(session).find(account_id, slug) is not None


def _slug_taken(slug: str | None) -> Conflict:
    return Conflict(
        f"The slug {slug!r} is taken by another workspace of the account. Choose another.",
        details={"field": "slug"},
    )
