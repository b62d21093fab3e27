"""`bastide workspace snapshot` and `restore`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bastide.cli.fault import goes_on
from bastide.cli.options import Json, WorkspaceName, Yes

if TYPE_CHECKING:
    from bastide.client import Snapshot

MIB = 1024 * 1024


class After(StrEnum):
    """What the workspace is once its snapshot is taken."""

    RESUME = "resume"
    PAUSED = "paused"
    STOP = "stop"


def snapshot(
    workspace: WorkspaceName,
    *,
    after: Annotated[
        After | None,
        typer.Option(help="What it is afterwards. Default: what it was."),
    ] = None,
    json: Json = False,
) -> None:
    """Capture memory and disk of a running workspace; the last snapshot is replaced."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json
    from bastide.cli.progress import progress

    left = goes_on(f"bastide workspace info {workspace}")
    with cloud() as client, progress("capturing memory and disk", json=json, left=left):
        taken = client.workspaces.snapshot(workspace, after=after.value if after else None)
    if json:
        show_json(taken.model_dump(mode="json"))
    else:
        typer.echo(f"snapshot: {workspace}, {_told(taken)}")


def restore(workspace: WorkspaceName, *, yes: Yes = False, json: Json = False) -> None:
    """Go back to the last snapshot; what was done since is lost."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import ask_about, show_json
    from bastide.cli.progress import progress

    with cloud() as client:
        question = "Put {} back to its last snapshot, losing what came after?"
        found = ask_about(client, workspace, question, yes=yes)
        left = goes_on(f"bastide workspace get {found}")
        with progress("restoring memory and disk", json=json, left=left):
            taken = client.workspaces.restore(found)
    if json:
        show_json(taken.model_dump(mode="json"))
    else:
        typer.echo(f"restored: {workspace}, as it was at {taken.created_at}")


def _told(taken: Snapshot) -> str:
    memory, disk = taken.memory_bytes / MIB, taken.disk_bytes / MIB
    return f"memory {memory:.0f} MiB, disk {disk:.0f} MiB, stood still {taken.frozen_ms:.0f} ms"
