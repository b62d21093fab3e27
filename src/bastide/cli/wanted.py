"""What a workspace is to be, as `create` and `update` take it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Env = Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; may be repeated.")]
Command = Annotated[
    str | None,
    typer.Option(
        help='Its main command: a line for the shell, or words as JSON: ["node", "server.js"].',
    ),
]
Restart = Annotated[str | None, typer.Option(help="no, on-failure, always or unless-stopped.")]
MaxRestarts = Annotated[
    int | None, typer.Option(help="Restarts after which it stays down; 0: no limit.")
]
Driver = Annotated[
    str | None,
    typer.Option(help="What runs it: auto, container or microvm (for admins)."),
]


def given(**values: Any) -> dict[str, Any]:
    """The settings that were given."""
    return {name: value for name, value in values.items() if value is not None}


def words(command: str | None) -> str | list[str] | None:
    """A main command: words if it is a JSON list of them, else a line for the shell.

    An empty one of either kind is none.
    """
    from json import loads

    if command is None or not command.startswith("["):
        return command
    try:
        listed: list[str] = loads(command)
    except ValueError:
        return command
    return listed if all(isinstance(word, str) for word in listed) else command


def source(archive: str | None) -> dict[str, Any]:
    """The archive that a workspace begins with.

    Raises:
        Fault: it is not ID:VERSION.
    """
    from bastide.cli.fault import Fault

    if archive is None:
        return {}
    workspace, colon, version = archive.rpartition(":")
    if not colon or not workspace or not version:
        raise Fault(f"--archive {archive!r} is not ID:VERSION", "such as web:3", code=2)
    return {"archive": {"workspace": workspace, "version": version}}


def pairs(variables: list[str] | None) -> dict[str, str] | None:
    """Variables by their names.

    Raises:
        Fault: one is not NAME=VALUE.
    """
    from bastide.cli.fault import Fault

    if not variables:
        return None
    wrong = next((pair for pair in variables if "=" not in pair or pair.startswith("=")), None)
    if wrong is not None:
        raise Fault(f"--env {wrong!r} is not NAME=VALUE", "write it as --env NAME=VALUE", code=2)
    return dict(pair.split("=", 1) for pair in variables)
