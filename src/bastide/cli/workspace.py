"""`bastide workspace`: create, use and delete workspaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bastide.cli import lifecycle, snapshot, ssh
from bastide.cli.exec import exec_
from bastide.cli.image import read_auth
from bastide.cli.options import Json, WorkspaceName, Yes

if TYPE_CHECKING:
    from bastide.client import Bastide, Workspace

app = typer.Typer(help="Workspaces (also: bastide ws).", no_args_is_help=True)
app.command("exec", context_settings={"ignore_unknown_options": True})(exec_)
app.add_typer(ssh.app, name="ssh")
for command in (
    lifecycle.pause,
    lifecycle.resume,
    lifecycle.lifecycle,
    lifecycle.details,
    lifecycle.ttl,
    lifecycle.ping,
    lifecycle.resize,
    lifecycle.destroy,
    snapshot.snapshot,
    snapshot.restore,
    lifecycle.archived,
):
    app.command()(command)


@app.command()
def create(
    name: Annotated[str | None, typer.Argument(help="A name; one is made when left out.")] = None,
    *,
    image: Annotated[
        str | None,
        typer.Option(
            help="Id of the catalogue, or registry/name:tag. Default: debian-12, or that of "
            "--archive."
        ),
    ] = None,
    image_user: Annotated[str | None, typer.Option(help="Name at the image's registry.")] = None,
    image_password_stdin: Annotated[
        bool, typer.Option(help="Read the password for the registry from standard input.")
    ] = False,
    archive: Annotated[
        str | None,
        typer.Option(metavar="ID:VERSION", help="Begin with the files of an archive."),
    ] = None,
    slug: Annotated[str | None, typer.Option(help="A short name for URLs and commands.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace.")] = None,
    cpus: Annotated[float | None, typer.Option(help="Cores.")] = None,
    memory: Annotated[int | None, typer.Option(help="MiB of memory.")] = None,
    disk: Annotated[int | None, typer.Option(help="MiB of disk.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; may be repeated.")
    ] = None,
    ttl: Annotated[
        str | None, typer.Option(help="Make it temporary: 30m, 1h, 7d, or seconds.")
    ] = None,
    ttl_action: Annotated[
        str | None, typer.Option(help="At the end of its ttl: stop, pause or remove.")
    ] = None,
    restart: Annotated[
        str | None, typer.Option(help="no, on-failure, always or unless-stopped.")
    ] = None,
    driver: Annotated[
        str | None, typer.Option(help="What runs it: auto, container or microvm (for admins).")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Return only once it is ready.")] = True,
    json: Json = False,
) -> None:
    """Create a workspace."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json

    with cloud() as client:
        made = client.workspaces.create(
            image,
            image_auth=read_auth(image_user, password_stdin=image_password_stdin),
            name=name,
            slug=slug,
            namespace=namespace,
            cpus=cpus,
            memory_mb=memory,
            disk_size_mb=disk,
            env=_pairs(env),
            config={
                **_given(ttl=ttl, ttl_action=ttl_action, restart_policy=restart, driver=driver),
                **_source(archive),
            },
            wait=False,
        )
        if wait:
            made = _watch(client, made.id)
        if json:
            show_json(_plain(made))
        else:
            typer.echo(made.id)


@app.command("list")
def list_(
    *,
    status: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Only those of this namespace.")] = None,
    json: Json = False,
) -> None:
    """List workspaces."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json, show_table

    with cloud() as client:
        found = list(client.workspaces.list(status=status, namespace=namespace))
    if json:
        show_json([_plain(workspace) for workspace in found])
        return
    show_table(
        ("ID", "NAME", "STATE", "IMAGE", "CPUS", "MEM", "DISK", "AGE"),
        (
            (
                workspace.id,
                workspace.slug or workspace.name,
                workspace.state,
                workspace.image,
                _resource(workspace, "cpus"),
                _resource(workspace, "memory_mb"),
                _resource(workspace, "disk_size_mb"),
                _age(workspace),
            )
            for workspace in found
        ),
    )


@app.command()
def get(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Show one workspace."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_fields, show_json

    with cloud() as client:
        found = client.workspaces.get(workspace)
    if json:
        show_json(_plain(found))
        return
    fault = found.provisioning.error if found.provisioning else None
    show_fields(
        [
            ("id", found.id),
            ("name", found.name),
            ("slug", found.slug),
            ("state", found.state),
            ("image", found.image),
            ("mode", found.mode),
            ("namespace", found.namespace),
            ("cpus", _resource(found, "cpus")),
            ("memory MiB", _resource(found, "memory_mb")),
            ("disk MiB", _resource(found, "disk_size_mb")),
            ("created", found.created_at),
            *([("error", f"{fault.message} ({fault.code})")] if fault else []),
        ]
    )


@app.command()
def start(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Start a stopped workspace and wait until it is ready."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        client.workspaces.start(workspace)
        _watch(client, workspace)
        lifecycle.tell(client, workspace, "running", json=json)


@app.command()
def stop(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Stop a workspace; its disk is kept."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        client.workspaces.stop(workspace)
        lifecycle.tell(client, workspace, "stopped", json=json)


@app.command()
def restart(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Stop a workspace and start it again."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        client.workspaces.restart(workspace)
        _watch(client, workspace)
        lifecycle.tell(client, workspace, "running", json=json)


@app.command()
def retry(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Try a creation that failed again, and wait until it is ready."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        client.workspaces.retry(workspace)
        _watch(client, workspace)
        lifecycle.tell(client, workspace, "running", json=json)


@app.command()
def delete(workspace: WorkspaceName, *, yes: Yes = False, json: Json = False) -> None:
    """Delete a workspace and its disk for good."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import ask, note, show_json

    with cloud() as client:
        found = client.workspaces.get(workspace)
        ask(f"Delete {found.slug or found.name} ({found.id}) and its disk for good?", yes=yes)
        client.workspaces.delete(found.id)
    if json:
        show_json({"id": found.id, "deleted": True})
    else:
        note(f"deleted: {found.id}")


def _watch(client: Bastide, workspace: str) -> Workspace:
    """Wait until it is ready, telling each phase on standard error."""
    import time

    from bastide.cli.output import note

    began = time.monotonic()

    def tell(now: Workspace) -> None:
        if now.provisioning is not None:
            phase, message = now.provisioning.phase, now.provisioning.message or ""
            more = f"  {message}" if message.startswith("Image ") else ""
            note(f"    {time.monotonic() - began:5.2f}s  {phase}{more}")

    return client.workspaces.wait_ready(workspace, on_change=tell)


def _given(**values: str | None) -> dict[str, Any]:
    """The settings that were given; a bare number is seconds."""
    return {
        name: int(value) if value.isdigit() else value
        for name, value in values.items()
        if value is not None
    }


def _source(archive: str | None) -> dict[str, Any]:
    """The archive that a workspace begins with."""
    from bastide.cli.fault import Fault

    if archive is None:
        return {}
    workspace, colon, version = archive.rpartition(":")
    if not colon or not workspace or not version:
        raise Fault(f"--archive {archive!r} is not ID:VERSION", "such as web:3", code=2)
    return {"archive": {"workspace": workspace, "version": version}}


def _pairs(given: list[str] | None) -> dict[str, str] | None:
    from bastide.cli.fault import Fault

    if not given:
        return None
    wrong = next((pair for pair in given if "=" not in pair or pair.startswith("=")), None)
    if wrong is not None:
        raise Fault(f"--env {wrong!r} is not NAME=VALUE", "write it as --env NAME=VALUE", code=2)
    return dict(pair.split("=", 1) for pair in given)


def _resource(workspace: Workspace, name: str) -> Any:
    value = getattr(workspace.resources, name, None) if workspace.resources else None
    return f"{value:g}" if isinstance(value, float) else value


def _age(workspace: Workspace) -> str | None:
    from datetime import UTC, datetime

    from bastide.cli.output import age

    if workspace.created_at is None:
        return None
    return age((datetime.now(UTC) - workspace.created_at).total_seconds())


def _plain(workspace: Workspace) -> dict[str, Any]:
    return workspace.model_dump(mode="json")
