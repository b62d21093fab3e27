"""`bastide workspace`: create, use and delete workspaces."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bastide.cli import lifecycle, machine, snapshot, ssh
from bastide.cli.exec import exec_
from bastide.cli.fault import goes_on
from bastide.cli.image import read_auth
from bastide.cli.options import Json, WorkspaceName, Yes
from bastide.cli.wanted import (
    Command,
    Driver,
    Env,
    MaxRestarts,
    Restart,
    given,
    pairs,
    source,
    words,
)
from bastide.domain.lifecycle import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bastide.cli.progress import Tell
    from bastide.client import Bastide, Workspace

_WITH_FIGURES = ("Image ", "Archive ")
"""How messages of a creation begin that say more than its phase."""

app = typer.Typer(help="Workspaces (also: bastide ws).", no_args_is_help=True)
app.command("exec", context_settings={"ignore_unknown_options": True})(exec_)
app.add_typer(ssh.app, name="ssh")
for command in (
    lifecycle.pause,
    lifecycle.resume,
    lifecycle.lifecycle,
    lifecycle.details,
    machine.info,
    lifecycle.ttl,
    lifecycle.ping,
    lifecycle.resize,
    lifecycle.destroy,
    lifecycle.reinstall,
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
    env: Env = None,
    cmd: Command = None,
    ttl: Annotated[
        str | None, typer.Option(help="Make it temporary: 30m, 1h, 7d, or seconds.")
    ] = None,
    ttl_action: Annotated[
        str | None, typer.Option(help="At the end of its ttl: stop, pause or remove.")
    ] = None,
    remove_on_exit: Annotated[
        bool, typer.Option("--remove-on-exit", help="With a ttl: delete it once its machine ends.")
    ] = False,
    restart: Restart = None,
    max_restarts: MaxRestarts = None,
    driver: Driver = None,
    wait: Annotated[bool, typer.Option(help="Return only once it is ready.")] = True,
    json: Json = False,
) -> None:
    """Create a workspace."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json
    from bastide.cli.progress import progress

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
            env=pairs(env),
            cmd=words(cmd),
            config={
                **given(
                    ttl=lifecycle.seconds(ttl),
                    ttl_action=ttl_action,
                    remove_on_exit=remove_on_exit or None,
                    restart_policy=restart,
                    max_restarts=max_restarts,
                    driver=driver,
                ),
                **source(archive),
            },
            wait=False,
        )
        if wait:
            left = goes_on(f"bastide workspace get {made.id}")
            with _shown_all_the_same(json=json), progress(json=json, left=left) as tell:
                made = _watch(client, made.id, tell)
        if json:
            show_json(_plain(made))
        else:
            typer.echo(made.id)


@app.command("list")
def list_(
    *,
    status: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="Only those of this mode.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Only those of this namespace.")] = None,
    json: Json = False,
) -> None:
    """List workspaces."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json, show_table

    with cloud() as client:
        found = list(
            client.workspaces.list(
                status=status, mode=mode.value if mode else None, namespace=namespace
            )
        )
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
def update(
    workspace: WorkspaceName,
    *,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    slug: Annotated[str | None, typer.Option(help='A new slug; "" takes it away.')] = None,
    env: Env = None,
    no_env: Annotated[bool, typer.Option("--no-env", help="Take all variables away.")] = False,
    cmd: Command = None,
    restart: Restart = None,
    max_restarts: MaxRestarts = None,
    driver: Driver = None,
    json: Json = False,
) -> None:
    """Change what is given; command, variables and driver count from the next start.

    The variables given take the place of all there were; an empty command takes it away. Sizes
    are changed with `resize`, leases with `ttl`.
    """
    from bastide.cli.connection import cloud
    from bastide.cli.fault import Fault
    from bastide.cli.output import note, show_json

    if env and no_env:
        raise Fault("--env and --no-env contradict each other", "give one of them", code=2)
    changes: dict[str, Any] = given(name=name)
    if slug is not None:
        changes["slug"] = slug or None
    config = given(
        env={} if no_env else pairs(env),
        cmd=words(cmd),
        restart_policy=restart,
        max_restarts=max_restarts,
        driver=driver,
    )
    if config:
        changes["config"] = config
    if not changes:
        raise Fault("nothing to change was given", "see bastide workspace update --help", code=2)
    with cloud() as client:
        found = client.workspaces.update(workspace, **changes)
    if json:
        show_json(_plain(found))
        return
    note(f"updated: {found.slug or found.name} ({found.id})")
    if config.keys() & {"env", "cmd", "driver"} and found.info and found.info.is_running:
        note("it counts from the next start")


@app.command()
def start(
    workspace: WorkspaceName,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Start it even if it is thought to run.")
    ] = False,
    json: Json = False,
) -> None:
    """Start a stopped workspace and wait until it is ready."""
    from bastide.cli.connection import cloud
    from bastide.cli.progress import progress

    with cloud() as client:
        left = goes_on(f"bastide workspace get {workspace}")
        with progress("starting", json=json, left=left):
            client.workspaces.start(workspace, force=force)
            client.workspaces.wait_ready(workspace)
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
    from bastide.cli.progress import progress

    with cloud() as client:
        left = goes_on(f"bastide workspace get {workspace}")
        with progress("restarting", json=json, left=left):
            client.workspaces.restart(workspace)
            client.workspaces.wait_ready(workspace)
        lifecycle.tell(client, workspace, "running", json=json)


@app.command()
def retry(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Try a creation that failed again, and wait until it is ready."""
    from bastide.cli.connection import cloud
    from bastide.cli.progress import progress

    with cloud() as client:
        left = goes_on(f"bastide workspace get {workspace}")
        with _shown_all_the_same(json=json), progress(json=json, left=left) as tell:
            client.workspaces.retry(workspace)
            _watch(client, workspace, tell)
        lifecycle.tell(client, workspace, "running", json=json)


@app.command()
def delete(workspace: WorkspaceName, *, yes: Yes = False, json: Json = False) -> None:
    """Delete a workspace and its disk for good."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import ask_about, note, show_json

    with cloud() as client:
        found = ask_about(client, workspace, "Delete {} and its disk for good?", yes=yes)
        archives = client.workspaces.archives.list(found)
        kept = sum(archive.status == "ready" for archive in archives)
        client.workspaces.delete(found)
    if json:
        show_json({"id": found, "deleted": True, "archives": kept})
        return
    note(f"deleted: {found}")
    if kept:
        note(
            f"its archives stay ({kept}), and count: bastide archive list {found} shows them, "
            f"bastide archive delete {found} --all removes them"
        )


@contextmanager
def _shown_all_the_same(*, json: bool) -> Iterator[None]:
    """With --json, what there is of a workspace that could not be made, with its error."""
    from bastide.cli.output import show_json
    from bastide.client import ProvisioningFailed

    try:
        yield
    except ProvisioningFailed as error:
        if json and error.workspace is not None:
            show_json(_plain(error.workspace))
        raise


def _watch(client: Bastide, workspace: str, tell: Tell) -> Workspace:
    """Wait until it is ready, however long an image or an archive takes, telling each phase."""

    def changed(now: Workspace) -> None:
        if now.provisioning is not None:
            phase, message = now.provisioning.phase, now.provisioning.message or ""
            more = f"  {message}" if message.startswith(_WITH_FIGURES) else ""
            tell(f"{phase}{more}")

    return client.workspaces.wait_ready(workspace, timeout=math.inf, on_change=changed)


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
