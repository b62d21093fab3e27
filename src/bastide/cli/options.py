"""Options that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WorkspaceName = Annotated[str, typer.Argument(metavar="ID", help="Id or slug of a workspace.")]
