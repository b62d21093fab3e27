"""`bastide archive`: versioned backups of the files of workspaces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bastide.cli.fault import Fault, goes_on
from bastide.cli.options import Json, WorkspaceName, Yes

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable, Iterator

    from bastide.cli.progress import Tell
    from bastide.client import Archive, Bastide, Operation

MIB = 1024 * 1024
TELL_EVERY = 1.0
"""Seconds between lines of progress."""
Version = Annotated[str, typer.Argument(metavar="VERSION", help="Version of the archive.")]

app = typer.Typer(
    help="Archives: versioned backups of the files of workspaces.", no_args_is_help=True
)


@app.command()
def create(
    workspace: WorkspaceName,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Default: the next number.")
    ] = None,
    *,
    path: Annotated[
        list[str] | None, typer.Option(help="Only this path; may be repeated. Default: all files.")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Leave out: /a/path, or a name anywhere; may be repeated."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Return only once it is stored.")] = True,
    json: Json = False,
) -> None:
    """Back up the files of a workspace. For files that do not change meanwhile, stop it first."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json
    from bastide.cli.progress import progress

    left = goes_on(f"bastide archive list {workspace}")
    with cloud() as client, progress(json=json or not wait, left=left) as tell:
        made = client.workspaces.archives.create(
            workspace, version, paths=path, excludes=exclude, wait=wait, on_change=_steps(tell)
        )
    if json:
        show_json(made.model_dump(mode="json"))
    else:
        size = "" if made.size_bytes is None else f", {_size(made.size_bytes)}"
        typer.echo(f"archive: {made.workspace_id} version {made.version}, {made.status}{size}")


@app.command("list")
def list_(
    workspace: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORKSPACE]",
            help="Its id or slug; of a deleted one its id. Default: those of all workspaces.",
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List archives, newest first: of one workspace, or of all, deleted ones too."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json, show_table

    with cloud() as client:
        archives = client.workspaces.archives
        found = list(archives.all()) if workspace is None else archives.list(workspace)
    if json:
        show_json([archive.model_dump(mode="json") for archive in found])
        return
    columns = ("VERSION", "STATE", "SIZE", "FILES", "CONSISTENCY", "CREATED")
    rows = (
        (
            archive.version,
            archive.status,
            _size(archive.size_bytes),
            _size(archive.tar_bytes),
            archive.consistency,
            f"{archive.created_at:%Y-%m-%d %H:%M:%S}" if archive.created_at else None,
        )
        for archive in found
    )
    if workspace is not None:
        show_table(columns, rows)
        return
    owners = (
        (
            archive.workspace_id,
            archive.workspace_slug or archive.workspace_name,
            "yes" if archive.workspace_deleted else "no",
        )
        for archive in found
    )
    show_table(
        ("WORKSPACE", "NAME", "DELETED", *columns),
        ((*owner, *row) for owner, row in zip(owners, rows, strict=True)),
    )


@app.command()
def get(workspace: WorkspaceName, version: Version, *, json: Json = False) -> None:
    """Show one archive."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_fields, show_json

    with cloud() as client:
        found = client.workspaces.archives.get(workspace, version)
    if json:
        show_json(found.model_dump(mode="json"))
        return
    show_fields(
        [
            ("version", found.version),
            ("workspace", found.workspace_id),
            ("state", found.status),
            ("size", _size(found.size_bytes)),
            ("files", _size(found.tar_bytes)),
            ("sha256", found.sha256),
            ("paths", " ".join(found.vm_paths)),
            ("excludes", " ".join(found.exclude_vm_paths)),
            ("consistency", found.consistency),
            ("image", found.image),
            ("created", found.created_at),
            *([("message", found.message)] if found.message else []),
            *([("error", f"{found.error.message} ({found.error.code})")] if found.error else []),
        ]
    )


@app.command()
def download(
    workspace: WorkspaceName,
    version: Version,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File, or directory to put it in. Default: its name, in this directory.",
        ),
    ] = None,
) -> None:
    """Download an archive (tar, compressed with zstd); one that broke off goes on."""
    from bastide.cli.connection import cloud
    from bastide.cli.progress import progress

    left = Fault("broken off", "run it again: it goes on where it was", code=130)
    with cloud() as client, progress(left=left) as tell:
        found = client.workspaces.archives.get(workspace, version)
        target = _target(output, found)
        draft = target.with_name(f"{target.name}.part")
        try:
            sha256 = _fetch(client, found, draft, tell)
            if found.sha256 is not None and sha256 != found.sha256:
                draft.unlink()
                raise Fault("what came is not what is stored: its SHA-256 differs", "try again")
            draft.replace(target)
        except OSError as error:
            raise _not_written(target, draft, error) from None
    typer.echo(str(target))


@app.command()
def restore(
    workspace: WorkspaceName,
    version: Version,
    *,
    into: Annotated[
        str | None, typer.Option(help="Another workspace than its own: id or slug.")
    ] = None,
    dest: Annotated[str, typer.Option(help="Directory its paths are put below.")] = "/",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Put the files of an archive over those of a workspace; other files stay."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import ask, show_json
    from bastide.cli.progress import progress

    with cloud() as client:
        target = into or workspace
        ask(f"Overwrite files of {target} below {dest} with version {version}?", yes=yes)
        left = goes_on(f"bastide workspace lifecycle {target}")
        with progress("restoring files", json=json, left=left) as tell:
            count = client.workspaces.archives.restore(
                workspace, version, into=into, dest=dest, on_change=_steps(tell)
            )
    if json:
        show_json({"workspace": target, "files_restored": count})
    else:
        typer.echo(f"restored: {target}, {count} files")


@app.command()
def delete(
    workspace: WorkspaceName,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Version; or give --all.")
    ] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="All of the workspace.")] = False,
    keep_file: Annotated[
        bool, typer.Option(help="Forget it, but leave its file where archives are kept.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Delete an archive and its file for good. One that is being made is given up."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import ask, note

    if (version is None) != all_:
        raise Fault("which archive?", "name a VERSION, or all of them with --all", code=2)
    what = "all archives" if version is None else f"version {version}"
    with cloud() as client:
        ask(f"Delete {what} of {workspace} for good?", yes=yes)
        archives = client.workspaces.archives
        if version is None:
            count = archives.delete_all(workspace, files=not keep_file)
            note(f"deleted: {count} archives of {workspace}")
            return
        archives.delete(workspace, version, file=not keep_file)
    note(f"deleted: version {version} of {workspace}")


def _steps(tell: Tell) -> Callable[[Archive | Operation], None]:
    """Tells the message of what goes on, each time it is another one."""
    last = ""

    def changed(now: Archive | Operation) -> None:
        nonlocal last
        if now.message and now.message != last:
            last = now.message
            tell(last)

    return changed


def _target(output: str | None, found: Archive) -> Path:
    """Where a download is put.

    Raises:
        Fault: it cannot be put there.
    """
    # A name of the server's is no path of ours.
    name = Path(found.name).name or "archive.tar.zst"
    if output is None:
        return Path(name)
    target = Path(output)
    if target.is_dir():
        target /= name
        if target.is_dir():
            raise Fault(f"{target} is a directory", "choose another place with --output", code=2)
    elif output.endswith("/") or not target.parent.is_dir():
        directory = target if output.endswith("/") else target.parent
        raise Fault(
            f"there is no directory {directory}",
            "make it, or choose another place with --output",
            code=2,
        )
    return target


def _not_written(target: Path, draft: Path, error: OSError) -> Fault:
    """What is told when the file cannot be written; nothing empty is left."""
    what = f"{target} cannot be written: {error.strerror or error}"
    try:
        size = draft.stat().st_size
        if size == 0:
            draft.unlink()
    except OSError:
        size = 0
    if size == 0:
        return Fault(what, "choose another place with --output")
    return Fault(
        what,
        f"what came is kept in {draft}: the same command goes on with it; or remove that file",
    )


def _fetch(client: Bastide, found: Archive, draft: Path, tell: Tell) -> str:
    """Get the rest of a file; the SHA-256 of all of it."""
    import hashlib
    import time

    taken = hashlib.sha256()
    with draft.open("ab+") as file:
        start = _hash_again(file.name, taken)
        archives = client.workspaces.archives
        version = found.version
        if start == found.size_bytes:
            return taken.hexdigest()
        with archives.download(found.workspace_id, version, start=start, sha256=found.sha256) as (
            begin,
            pieces,
        ):
            if begin != start:
                file.truncate(0)
                taken, start = hashlib.sha256(), 0
            done, told = start, time.monotonic()
            for piece in pieces:
                file.write(piece)
                taken.update(piece)
                done += len(piece)
                if time.monotonic() - told >= TELL_EVERY:
                    told = time.monotonic()
                    tell(f"{_size(done)} of {_size(found.size_bytes)}")
    tell(f"{_size(done)} downloaded")
    return taken.hexdigest()


def _hash_again(path: str, taken: hashlib._Hash) -> int:
    """Bytes that an earlier download has left, put into the hash."""
    count = 0
    for piece in _pieces(path):
        taken.update(piece)
        count += len(piece)
    return count


def _pieces(path: str) -> Iterator[bytes]:
    with Path(path).open("rb") as file:
        while piece := file.read(MIB):
            yield piece


def _size(count: int | None) -> str | None:
    """Bytes in the unit that fits."""
    if count is None:
        return None
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
