"""Archives (spec 4.8)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from bastide.api import shapes
from bastide.api.authentication import CallerOf
from bastide.api.byterange import wanted_range
from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.api.routes.workspaces import Limit, Page
from bastide.domain.archive import CreateArchive, RestoreArchive
from bastide.domain.instant import iso
from bastide.services.archive_records import ArchiveView
from bastide.store.tables import Archive

router = APIRouter(tags=["Snapshots & Archives"])
_PATH = "/workspace/{id}/archives"
_MEDIA_TYPE = "application/zstd"


@router.get("/archives", summary="List all archives")
async def list_all_archives(
    caller: CallerOf,
    services: ServicesOf,
    *,
    page: Page = 1,
    limit: Limit = 20,
    namespace: str | None = None,
) -> Envelope:
    """Newest first, as far as the credential reaches; also those of deleted workspaces."""
    found, total = await services.archives.page(caller, page=page, limit=limit, namespace=namespace)
    shown = [
        {
            **_shown(view),
            "workspace_name": row.name,
            "workspace_slug": row.slug,
            "workspace_deleted": row.deleted_at is not None,
        }
        for view, row in found
    ]
    return success(archives=shown, total=total, page=page, limit=limit)


@router.post(_PATH, status_code=201, summary="Create an archive")
async def create_archive(
    id: str,  # noqa: A002 - the wire's name
    caller: CallerOf,
    services: ServicesOf,
    body: CreateArchive | None = None,
) -> Envelope:
    """Back up files; answers when they are stored, unless `wait` is false."""
    view = await services.archives.create(caller, id, body or CreateArchive())
    shown = _shown(view)
    return success(201, **shown, archive=shown)


@router.get(_PATH, summary="List archives")
async def list_archives(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Newest first; also those of a deleted workspace, by its id."""
    found = await services.archives.list(caller, id)
    return success(archives=[_shown(view) for view in found])


@router.get(f"{_PATH}/{{version}}", summary="Get an archive")
async def get_archive(
    id: str,  # noqa: A002 - the wire's name
    version: str,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """One version."""
    shown = _shown(await services.archives.get(caller, id, version))
    return success(**shown, archive=shown)


@router.head(f"{_PATH}/{{version}}/download", include_in_schema=False)
@router.get(f"{_PATH}/{{version}}/download", summary="Download an archive")
async def download_archive(
    id: str,  # noqa: A002 - the wire's name
    version: str,
    request: Request,
    caller: CallerOf,
    services: ServicesOf,
) -> Response:
    """The file as it is stored (tar, compressed with zstd); `Range` is understood.

    HEAD tells of the whole file, as RFC 9110 wants it, and reads none of it.
    """
    alone = request.method == "HEAD"
    view, size, depot = await services.archives.open(caller, id, version)
    etag = f'"{view.row.sha256}"'
    condition = request.headers.get("If-Range")
    header = None if alone or condition not in {None, etag} else request.headers.get("Range")
    wanted = wanted_range(header, size)
    start, end = wanted or (0, size)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{_file_name(view.row)}"',
        "Content-Length": str(end - start),
        "ETag": etag,
        "Cache-Control": "private, no-transform",
    }
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if alone:
        return Response(headers=headers, media_type=_MEDIA_TYPE)
    return StreamingResponse(
        depot.read(view.row.file, start, end),
        status_code=200 if wanted is None else 206,
        media_type=_MEDIA_TYPE,
        headers=headers,
    )


@router.post(f"{_PATH}/{{version}}/restore", summary="Restore an archive")
async def restore_archive(
    id: str,  # noqa: A002 - the wire's name
    version: str,
    caller: CallerOf,
    services: ServicesOf,
    body: RestoreArchive | None = None,
) -> Envelope:
    """Put its files over those of its workspace, or of `workspace`.

    Answers when that is done; with `wait` false at once (202), `operation` being how far it is.
    """
    done = await services.archives.restore(caller, id, version, body or RestoreArchive())
    return success(
        202 if done.files is None else 200,
        id=done.operation.workspace_id,
        version=_version(done.archive),
        files_restored=done.files,
        operation=shapes.operation(done.operation),
    )


@router.delete(f"{_PATH}/{{version}}", summary="Delete an archive")
async def delete_archive(
    id: str,  # noqa: A002 - the wire's name
    version: str,
    caller: CallerOf,
    services: ServicesOf,
    *,
    delete_file: bool = False,
) -> Envelope:
    """Forget it; `delete_file=true` removes what is stored too."""
    archive = await services.archives.delete(caller, id, version, file=delete_file)
    return success(version=_version(archive), deleted=1)


@router.delete(_PATH, summary="Delete all archives")
async def delete_archives(
    id: str,  # noqa: A002 - the wire's name
    caller: CallerOf,
    services: ServicesOf,
    *,
    delete_files: bool = False,
) -> Envelope:
    """Forget them all; `delete_files=true` removes what is stored too."""
    return success(deleted=await services.archives.delete_all(caller, id, files=delete_files))


def _shown(view: ArchiveView) -> dict[str, Any]:
    """An archive on the wire."""
    row, making = view.row, view.making
    return {
        "version": _version(row),
        "name": _file_name(row),
        "workspace_id": row.workspace_id,
        "status": row.state.value,
        "format": "tar",
        "compression": "zstd",
        "size": row.size_bytes,
        "size_bytes": row.size_bytes,
        "tar_bytes": row.tar_bytes,
        "sha256": row.sha256,
        "vm_paths": row.vm_paths,
        "exclude_vm_paths": row.exclude_vm_paths,
        "consistency": row.consistency,
        "image": row.image,
        "created_at": iso(row.created_at),
        "completed_at": None if row.completed_at is None else iso(row.completed_at),
        "message": None if making is None else making.message,
        "error": row.error,
    }


def _version(row: Archive) -> int | str:
    """A number where it is one, as the documentation has it; else the text."""
    text = row.version
    return int(text) if text.isdigit() and str(int(text)) == text else text


def _file_name(row: Archive) -> str:
    return f"{row.workspace_id}-{row.version}.tar.zst"
