"""`bastide env`: addresses and key for clients."""

from __future__ import annotations

import typer

from bastide.cli.options import Json


def variables() -> dict[str, str]:
    """What a client of this server needs in its environment."""
    from bastide.cli.configuration import first_credentials, server_settings

    settings = server_settings()
    credentials = first_credentials()
    api, gateway = settings.api_url, settings.gateway_url
    return {
        "BASTIDE_API_URL": api,
        "BASTIDE_GATEWAY_URL": gateway,
        "BASTIDE_CLIENT_ID": credentials.client_id,
        "BASTIDE_CLIENT_SECRET": credentials.client_secret,
        "OBLIEN_BASE_URL": api,
        "OBLIEN_GATEWAY_URL": gateway,
        "OBLIEN_CLIENT_ID": credentials.client_id,
        "OBLIEN_CLIENT_SECRET": credentials.client_secret,
    }


def env(*, json: Json = False) -> None:
    """Print what clients need: eval "$(bastide env)"."""
    import shlex

    from bastide.cli.output import show_json

    found = variables()
    if json:
        show_json(found)
        return
    for name, value in found.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
