"""`bastide config`: the settings in force, and an example of all there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from bastide.cli.options import Json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

app = typer.Typer(help="Settings of this server.", no_args_is_help=True)


@app.command()
def show(*, json: Json = False) -> None:
    """Show the settings in force, passwords left out."""
    from bastide.cli.configuration import server_settings
    from bastide.cli.output import show_fields, show_json

    settings = server_settings()
    values = settings.model_dump(mode="json")
    values["database"]["url"] = _without_password(settings.database_url)
    if json:
        show_json(values)
    else:
        show_fields(_flat(values))


@app.command()
def example() -> None:
    """Print a bastide.toml with every setting, its default and its meaning."""
    typer.echo(example_text(), nl=False)


def example_text() -> str:
    """The text of bastide.toml.example."""
    from bastide.settings import Settings

    lines = [
        "# Settings of a Bastide server, with their defaults. Copy to /etc/bastide/bastide.toml",
        "# and uncomment what is to differ. An environment variable wins over the file:",
        "# BASTIDE_STATE_DIR, BASTIDE_LISTEN__API (two underscores between table and key).",
        "# Written by: bastide config example",
        "",
    ]
    sections = []
    for name, field in Settings.model_fields.items():
        value = field.get_default(call_default_factory=True)
        if hasattr(value, "model_fields_set"):
            sections.append((name, value))
        else:
            lines += _setting(name, value, field.description)
    for name, section in sections:
        doc = (type(section).__doc__ or "").strip().splitlines()[0]
        lines += ["", f"# {doc}", f"[{name}]"]
        for key, field in type(section).model_fields.items():
            lines += _setting(key, _plain(section)[key], field.description)
    return "\n".join(lines) + "\n"


def _setting(name: str, value: Any, description: str | None) -> Iterator[str]:
    import json

    if description:
        yield f"# {description}"
    if value is None:
        # TOML has no word for nothing.
        yield f"# {name} is not set"
        return
    shown = value if isinstance(value, int | float | list | bool) else str(value)
    yield f"#{name} = {json.dumps(shown)}"


def _plain(section: BaseModel) -> dict[str, Any]:
    return section.model_dump(mode="json")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _without_password(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)
