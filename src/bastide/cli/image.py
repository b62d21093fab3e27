"""`bastide image`: what workspaces can be made of, and what of it is on this server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bastide.cli.options import Json, Yes

app = typer.Typer(help="Images that workspaces are made of.", no_args_is_help=True)
MIB = 1024 * 1024
Reference = Annotated[str, typer.Argument(help="registry/name:tag or an id of the catalogue.")]
Username = Annotated[str | None, typer.Option("--username", "-u", help="Name at the registry.")]
Password = Annotated[
    bool, typer.Option("--password-stdin", help="Read password or token from standard input.")
]


@app.command("list")
def list_(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="All that is on this server (needs root).")
    ] = False,
    search: Annotated[str | None, typer.Option(help="Words to look for.")] = None,
    category: Annotated[str | None, typer.Option(help="os, runtime, database, ...")] = None,
    json: Json = False,
) -> None:
    """List the catalogue; with --all also what was pulled from registries."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json, show_table

    if everything:
        _list_all(as_json=json)
        return
    with cloud() as client:
        found = client.images.list(search, category)
    if json:
        show_json([image.model_dump(mode="json") for image in found])
        return
    show_table(
        ("ID", "IMAGE", "CATEGORY", "READY", "SIZE", "DESCRIPTION"),
        (
            (one.id, one.image, one.category, _yes(one.ready), _size(one.size_bytes), one.desc)
            for one in found
        ),
    )


def _list_all(*, as_json: bool) -> None:
    from bastide.cli.node_socket import answer_of, node
    from bastide.cli.output import show_json, show_table

    with node("looking at the images of this server") as client:
        found: list[dict[str, Any]] = answer_of(client.get("/v1/images"))["images"]
    if as_json:
        show_json(found)
        return
    show_table(
        ("ID", "IMAGE", "FROM", "READY", "USED", "SIZE", "LAST USED"),
        (
            (
                one["id"][:19],
                one["image"],
                one["origin"],
                _yes(one["ready"]),
                _yes(one["used"]),
                _size(one["size_bytes"]),
                (one["last_used"] or "")[:16],
            )
            for one in found
        ),
    )


@app.command()
def pull(
    reference: Reference,
    *,
    username: Username = None,
    password_stdin: Password = False,
    json: Json = False,
) -> None:
    """Fetch an image now, so that the first workspace does not wait for it (needs root)."""
    auth = read_auth(username, password_stdin=password_stdin)
    _have({"reference": reference, "auth": auth}, json=json)


@app.command()
def build(
    image: Annotated[str, typer.Argument(help="An id of the catalogue, such as python-3.11.")],
    *,
    json: Json = False,
) -> None:
    """Build an image of the catalogue from the packages (needs root)."""
    from bastide.cli.fault import Fault
    from bastide.domain.image import RECIPES, recipe

    if recipe(image) is None:
        known = ", ".join(one.id for one in RECIPES)
        raise Fault(f"there is no recipe {image!r}", f"choose among: {known}", code=2)
    _have({"reference": image, "auth": None}, json=json)


def _have(body: dict[str, Any], *, json: bool) -> None:
    from bastide.cli.node_socket import follow, node

    with node("having an image") as client:
        found = follow(client, "/v1/images/pull", body, json=json)
    _show(found, json=json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="An OCI archive; - is standard input.")],
    *,
    name: Annotated[str | None, typer.Option(help="Its id in the catalogue.")] = None,
    label: Annotated[str | None, typer.Option(help="What people read.")] = None,
    json: Json = False,
) -> None:
    """Put an image from an OCI archive into the catalogue (needs root)."""
    from bastide.cli.fault import Fault
    from bastide.cli.node_socket import follow, node

    wanted = name or file.name.partition(".")[0].lower()
    query = f"?name={_quoted(wanted)}" + (f"&label={_quoted(label)}" if label else "")
    with node("importing an image") as client:
        try:
            source = sys.stdin.buffer if str(file) == "-" else file.open("rb")
        except OSError as error:
            raise Fault(f"{file} cannot be read: {error.strerror}", code=2) from None
        with source:
            found = follow(client, f"/v1/images/import{query}", file=source, json=json)
    _show(found, json=json)


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


@app.command()
def remove(
    image: Annotated[str, typer.Argument(help="Id or reference.")],
    *,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove an image that no workspace uses (needs root)."""
    from bastide.cli.node_socket import answer_of, node
    from bastide.cli.output import ask, show_json

    ask(f"Remove the image {image} from this server?", yes=yes)
    with node("removing an image") as client:
        found = answer_of(client.post("/v1/images/remove", json={"reference": image}))
    if json:
        show_json(found)
    else:
        typer.echo(f"removed: {image}, {_size(found['bytes'])}")


@app.command()
def gc(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="All that is not used, not only above images.cache_mb.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove images and layers that nobody uses, the longest unused first (needs root)."""
    from bastide.cli.node_socket import answer_of, node
    from bastide.cli.output import show_json

    with node("removing images") as client:
        found = answer_of(client.post("/v1/images/gc", json={"everything": everything}))
    if json:
        show_json(found)
        return
    typer.echo(
        f"removed: {found['images']} images, {found['layers']} layers, {_size(found['bytes'])}"
    )


@app.command()
def login(
    registry: Annotated[str, typer.Argument(help="host or host:port.")],
    *,
    username: Annotated[str, typer.Option("--username", "-u", help="Name at the registry.")],
    password_stdin: Password = False,
) -> None:
    """Keep credentials for a registry, for every workspace of this server (needs root)."""
    auth = read_auth(username, password_stdin=password_stdin)
    _login(registry, auth)
    typer.echo(f"logged in: {registry}")


@app.command()
def logout(registry: Annotated[str, typer.Argument(help="host or host:port.")]) -> None:
    """Forget the credentials for a registry (needs root)."""
    _login(registry, None)
    typer.echo(f"logged out: {registry}")


def _login(registry: str, auth: dict[str, str] | None) -> None:
    from bastide.cli.node_socket import answer_of, node

    with node("logging in to a registry") as client:
        answer_of(client.put("/v1/registries", json={"registry": registry, "auth": auth}))


def read_auth(username: str | None, *, password_stdin: bool) -> dict[str, str] | None:
    """Credentials as the server takes them; the password from standard input or asked for.

    Raises:
        Fault: there is none.
    """
    from bastide.cli.fault import Fault

    if username is None and not password_stdin:
        return None
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True)
    else:
        raise Fault("there is nobody to ask for the password", "add --password-stdin", code=2)
    if not password:
        raise Fault("the password is empty", code=2)
    return {"username": username or "", "password": password}


def _show(found: dict[str, Any], *, json: bool) -> None:
    from bastide.cli.output import note, show_json

    if json:
        show_json(found)
        return
    if found["skipped"]:
        note(f"    {found['skipped']} entries were left out: no workspace can have them")
    typer.echo(found["image"] if found["origin"] == "pull" else found["id"])


def _size(size: int | None) -> str:
    return "" if size is None else f"{size / MIB:.1f} MiB"


def _yes(value: object) -> str:
    return "yes" if value else "no"
