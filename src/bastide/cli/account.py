"""`bastide account`: accounts, on the server itself."""

from __future__ import annotations

from typing import Annotated

import typer

from bastide.cli.options import Json

app = typer.Typer(help="Accounts of this server (needs root).", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="For people.")],
    *,
    json: Json = False,
) -> None:
    """Make an account; give it a key with: bastide key create --account ID."""
    from bastide.cli.output import show_fields, show_json
    from bastide.cli.store import with_store

    made = with_store(lambda store: store.accounts.create(name))
    shown = {"id": made.id, "name": made.name}
    if json:
        show_json(shown)
    else:
        show_fields(shown.items())


@app.command("list")
def list_(*, json: Json = False) -> None:
    """List the accounts."""
    from bastide.cli.output import show_json, show_table
    from bastide.cli.store import with_store

    accounts = with_store(lambda store: store.accounts.all())
    if json:
        show_json([{"id": account.id, "name": account.name} for account in accounts])
        return
    show_table(("ID", "NAME"), ((account.id, account.name) for account in accounts))
