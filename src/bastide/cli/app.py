"""The `bastide` command and its parts.

Every part imports what it needs when it is used, so that `bastide --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bastide.cli import (
    account,
    archive,
    config,
    doctor,
    down,
    env,
    image,
    key,
    lifecycle,
    network,
    prepare,
    ssh,
    status,
    up,
    workspace,
)
from bastide.cli.fault import Fault

app = typer.Typer(
    name="bastide",
    help="A cloud of Linux workspaces on this server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(down.down)
app.command()(status.status)
app.command()(prepare.prepare)
app.command()(doctor.doctor)
app.command()(env.env)
app.command("ssh", context_settings={"ignore_unknown_options": True})(ssh.connect)
app.command()(lifecycle.quota)
app.command()(lifecycle.estimate)
app.add_typer(workspace.app, name="workspace")
app.add_typer(workspace.app, name="ws", hidden=True)
app.add_typer(archive.app, name="archive")
app.add_typer(network.app, name="network")
app.add_typer(image.app, name="image")
app.add_typer(key.app, name="key")
app.add_typer(account.app, name="account")
app.add_typer(config.app, name="config")


def _version(*, value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"bastide {version('bastide')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A cloud of Linux workspaces on this server."""


def main() -> None:
    """Run the command; a fault is told in two lines and ends with its code."""
    try:
        app()
    except Fault as fault:
        for line in fault.lines():
            sys.stderr.write(f"{line}\n")
        sys.exit(fault.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does.
        sys.stderr.close()
        sys.exit(141)
