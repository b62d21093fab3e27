"""`bastide key`: API keys, on the server itself."""

from __future__ import annotations

from typing import Annotated

import typer

from bastide.cli.options import Json

app = typer.Typer(help="API keys of this server (needs root).", no_args_is_help=True)
Account = Annotated[
    str | None, typer.Option("--account", help="Account id. Default: the first account.")
]


@app.command()
def create(
    *,
    scope: Annotated[str, typer.Option(help="admin, namespace, workspace or billing.")] = "admin",
    namespace: Annotated[str | None, typer.Option(help="For scope namespace.")] = None,
    workspace: Annotated[str | None, typer.Option(help="For scope workspace: id or slug.")] = None,
    label: Annotated[str | None, typer.Option(help="For people.")] = None,
    account: Account = None,
    json: Json = False,
) -> None:
    """Make a key. Its secret is shown this once and kept nowhere."""
    from bastide.cli.fault import Fault
    from bastide.cli.output import note, show_fields, show_json
    from bastide.cli.store import with_store
    from bastide.domain.scope import Scope

    try:
        reach = Scope(scope)
    except ValueError:
        names = ", ".join(Scope)
        raise Fault(f"no scope {scope!r}", f"choose among: {names}", code=2) from None
    issued = with_store(
        lambda store: store.keys.create(
            store.caller, reach, namespace=namespace, workspace=workspace, label=label
        ),
        account,
    )
    shown = {
        "client_id": issued.client_id,
        "client_secret": issued.client_secret,
        "scope": issued.key.scope.value,
        "namespace": issued.key.namespace,
        "workspace_id": issued.key.workspace_id,
        "label": issued.key.label,
    }
    if json:
        show_json(shown)
        return
    show_fields(shown.items())
    note("the secret is not shown again")


@app.command("list")
def list_(*, account: Account = None, json: Json = False) -> None:
    """List the keys, revoked ones too."""
    from bastide.cli.output import show_json, show_table
    from bastide.cli.store import with_store

    keys = with_store(lambda store: store.keys.all(store.caller), account)
    if json:
        show_json(
            [
                {
                    "client_id": key.client_id,
                    "scope": key.scope.value,
                    "namespace": key.namespace,
                    "workspace_id": key.workspace_id,
                    "label": key.label,
                    "created_at": key.created_at,
                    "last_used_at": key.last_used_at,
                    "revoked_at": key.revoked_at,
                }
                for key in keys
            ]
        )
        return
    show_table(
        ("CLIENT ID", "SCOPE", "FOR", "LABEL", "LAST USED", "REVOKED"),
        (
            (
                key.client_id,
                key.scope.value,
                key.namespace or key.workspace_id,
                key.label,
                _day(key.last_used_at),
                _day(key.revoked_at),
            )
            for key in keys
        ),
    )


@app.command()
def revoke(
    client_id: Annotated[str, typer.Argument(help="Client id of the key.")],
    *,
    account: Account = None,
) -> None:
    """Revoke a key, at once and for good."""
    from bastide.cli.output import note
    from bastide.cli.store import with_store

    with_store(lambda store: store.keys.revoke(store.caller, client_id), account)
    note(f"revoked: {client_id}")


def _day(moment: object) -> str | None:
    return None if moment is None else str(moment)[:16]
