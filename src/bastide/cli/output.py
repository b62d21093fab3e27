"""How results are shown: a table for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from bastide.client import Bastide

WIDE = 1000


def show_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Short columns without frames; cut to the screen, but whole when piped."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*("-" if cell is None or cell == "" else str(cell) for cell in row))
    width = None if sys.stdout.isatty() else WIDE
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


def show_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One thing: a name and a value a line."""
    shown = [(name, "-" if value is None or value == "" else str(value)) for name, value in fields]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        typer.echo(f"{name:<{width}}  {value}")


def plain_number(value: float | None) -> float | None:
    """A number as people write it: 2 for 2.0."""
    return int(value) if value is not None and value == int(value) else value


def age(seconds: float) -> str:
    """A duration in its largest unit: 5s, 12m, 3h, 4d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(max(0, seconds))}s"


def note(text: str) -> None:
    """A line of progress, on standard error so that results stay clean."""
    typer.echo(text, err=True)


def ask(question: str, *, yes: bool) -> None:
    """Go on only after a yes; `yes` answers for the person.

    Raises:
        Fault: nobody can be asked.
        typer.Exit: the answer is no.
    """
    from bastide.cli.fault import Fault

    if yes:
        return
    if not sys.stdin.isatty():
        raise Fault("this needs a yes, and there is nobody to ask", "add --yes", code=2)
    if not typer.confirm(question):
        note("nothing was changed")
        raise typer.Exit(1)


def ask_about(client: Bastide, workspace: str, question: str, *, yes: bool) -> str:
    """Like `ask`, with the workspace's name and id for the `{}` of the question; its id."""
    found = client.workspaces.get(workspace)
    ask(question.format(f"{found.slug or found.name} ({found.id})"), yes=yes)
    return found.id
