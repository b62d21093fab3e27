"""`bastide workspace`: how workspaces live: pause, leases, sizes, destroy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bastide.cli.fault import goes_on
from bastide.cli.options import Json, WorkspaceName, Yes

if TYPE_CHECKING:
    from bastide.client import Bastide, Lifecycle

Ttl = Annotated[
    str | None,
    typer.Argument(metavar="[TTL]", help="A duration: 30m, 1h, 7d, seconds, or off."),
]
Action = Annotated[str | None, typer.Option("--action", help="At its end: stop, pause or remove.")]


def pause(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Freeze a workspace: memory and connections are kept, no processor time is used."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        client.workspaces.pause(workspace)
        tell(client, workspace, "paused", json=json)


def resume(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Let a paused workspace go on."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        client.workspaces.resume(workspace)
        tell(client, workspace, "running", json=json)


def details(workspace: WorkspaceName, *, json: Json = True) -> None:  # noqa: ARG001 - there is no other form
    """Print everything about a workspace as JSON; its gateway token is among it."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json

    with cloud() as client:
        show_json(client.workspaces.details(workspace))


def lifecycle(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Show mode, restarts, lease and uptime."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        found = client.workspaces.lifecycle(workspace)
    _show(found, json=json)
    if not json:
        _show_ends((found.restart_info or {}).get("history") or [])


def ttl(
    workspace: WorkspaceName,
    ttl: Ttl = None,
    *,
    action: Action = None,
    remove_on_exit: Annotated[
        bool | None, typer.Option(help="Delete it as soon as its machine ends.")
    ] = None,
    restart: Annotated[
        str | None,
        typer.Option(help="With off: always (usual), unless-stopped, on-failure or no."),
    ] = None,
    json: Json = False,
) -> None:
    """Give a workspace a lease from now; TTL `off` makes it permanent.

    With --action and no TTL the lease goes on, and has that action at its end.
    """
    from bastide.cli.connection import cloud
    from bastide.cli.fault import Fault

    if ttl == "off" and (action is not None or remove_on_exit):
        raise Fault(
            "what is permanent has no end to act at",
            "leave --action and --remove-on-exit out, or give a TTL",
            code=2,
        )
    if ttl != "off" and restart is not None:
        raise Fault("what has a lease is not restarted", "give --restart with off", code=2)
    if ttl is None and (action is None or remove_on_exit is not None):
        raise Fault("no TTL was given", "give one, such as 1h, or --action alone", code=2)
    with cloud() as client:
        workspaces = client.workspaces
        if ttl == "off":
            _show(workspaces.make_permanent(workspace, restart_policy=restart), json=json)
            return
        length = seconds(ttl)
        if length is None or (
            remove_on_exit is None and workspaces.lifecycle(workspace).mode == "temporary"
        ):
            _show(workspaces.update_ttl(workspace, length, ttl_action=action), json=json)
            return
        made = workspaces.make_temporary(
            workspace, length, ttl_action=action, remove_on_exit=remove_on_exit
        )
        _show(made, json=json)


def ping(
    workspace: WorkspaceName,
    *,
    seconds: Annotated[
        int | None, typer.Option(help="For this time only: so many seconds.")
    ] = None,
    json: Json = False,
) -> None:
    """Renew the lease of a temporary workspace."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import note, show_json

    with cloud() as client:
        renewed = client.workspaces.ping(workspace, ttl_seconds=seconds)
    if json:
        show_json(renewed.model_dump(mode="json"))
    else:
        note(f"until {renewed.ttl_expires_at}" if renewed.ttl else f"permanent: {workspace}")


def resize(
    workspace: WorkspaceName,
    *,
    cpus: Annotated[float | None, typer.Option(help="Cores.")] = None,
    memory: Annotated[int | None, typer.Option(help="MiB of memory.")] = None,
    disk: Annotated[int | None, typer.Option(help="MiB of disk; it can only grow.")] = None,
    apply: Annotated[bool, typer.Option(help="Now, else from the next start.")] = True,
    json: Json = False,
) -> None:
    """Change the sizes of a workspace."""
    from bastide.cli.connection import cloud
    from bastide.cli.fault import Fault
    from bastide.cli.output import note, show_fields, show_json
    from bastide.cli.progress import progress

    if cpus is None and memory is None and disk is None:
        raise Fault("no size was given", "add --cpus, --memory or --disk", code=2)
    left = goes_on(f"bastide workspace get {workspace}")
    with cloud() as client, progress("changing sizes", json=json, left=left):
        done = client.workspaces.resize(
            workspace, cpus=cpus, memory_mb=memory, disk_size_mb=disk, apply=apply
        )
    if json:
        show_json(done.model_dump(mode="json"))
        return
    if done.resources is not None:
        show_fields(
            [
                ("cpus", f"{done.resources.cpus:g}"),
                ("memory MiB", done.resources.memory_mb),
                ("disk MiB", done.resources.disk_size_mb),
            ]
        )
    now = apply and done.resources is not None and done.resources.status == "running"
    if done.relaunched:
        note("the machine was booted anew")
    else:
        note("no new boot was needed" if now else "it counts from the next start")


def destroy(workspace: WorkspaceName, *, yes: Yes = False, json: Json = False) -> None:
    """Remove machine and disk of a workspace, and keep its record."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import ask_about, note
    from bastide.cli.progress import progress

    with cloud() as client:
        question = "Destroy the machine and the disk of {} for good?"
        found = ask_about(client, workspace, question, yes=yes)
        left = goes_on(f"bastide workspace get {found}")
        with progress("removing machine and disk", json=json, left=left):
            client.workspaces.destroy(found)
        tell(client, found, "destroyed", json=json)
    if not json:
        note("its record stays until it is deleted")


def reinstall(workspace: WorkspaceName, *, yes: Yes = False, json: Json = False) -> None:
    """Let a workspace begin anew from its image; every file in it is lost."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import ask_about
    from bastide.cli.progress import progress

    with cloud() as client:
        question = "Remove every file of {} and begin from its image?"
        found = ask_about(client, workspace, question, yes=yes)
        left = goes_on(f"bastide workspace get {found}")
        with progress("beginning from the image", json=json, left=left):
            client.workspaces.reinstall(found)
        tell(client, found, "reinstalled", json=json)


def archived(*, json: Json = False) -> None:
    """List workspaces whose machine is gone for good."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json, show_table

    with cloud() as client:
        found = client.workspaces.archived(limit=100).workspaces
    rows = [workspace.model_dump(mode="json") for workspace in found]
    if json:
        show_json(rows)
        return
    show_table(
        ("ID", "NAME", "IMAGE", "ARCHIVED", "REASON", "DELETED"),
        (
            (
                row["id"],
                row["slug"] or row["name"],
                row["image"],
                row.get("archived_at"),
                row.get("archived_reason"),
                "yes" if row.get("deleted") else "no",
            )
            for row in rows
        ),
    )


def quota(*, json: Json = False) -> None:
    """Show what the account may have and has."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import note, plain_number, show_json, show_table

    with cloud() as client:
        found = client.workspaces.quota()
    if json:
        show_json(found.model_dump(mode="json"))
        return
    fields = ("count", "cpus", "memory_mb", "disk_size_mb")
    show_table(
        ("", "COUNT", "CPUS", "MEMORY MiB", "DISK MiB"),
        (
            (label, *(plain_number(figures.get(name)) for name in fields))
            for label, figures in (
                ("owned", found.pool_usage),
                ("most", found.pool),
                ("running", found.running_pool_usage),
                ("most running", found.running_pool),
                ("most in one", found.limits),
            )
        ),
    )
    if found.reason:
        note(found.reason)


def estimate(
    *,
    cpus: Annotated[float | None, typer.Option(help="Cores.")] = None,
    memory: Annotated[float | None, typer.Option(help="MiB of memory.")] = None,
    disk: Annotated[float | None, typer.Option(help="MiB of disk.")] = None,
    json: Json = False,
) -> None:
    """Estimate what a workspace costs, by the prices of this server."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_fields, show_json

    with cloud() as client:
        found = client.workspaces.estimate(cpus=cpus, memory_mb=memory, disk_size_mb=disk)
    if json:
        show_json(found.model_dump(mode="json"))
        return
    show_fields(
        [
            (f"credits a {found.period}, idle", found.min),
            ("usually", found.avg),
            ("every core busy", found.max),
        ]
    )


def tell(client: Bastide, workspace: str, state: str, *, json: bool) -> None:
    """What a workspace is now: a line for people, or all of it for programs."""
    from bastide.cli.output import note, show_json

    if json:
        show_json(client.workspaces.get(workspace).model_dump(mode="json"))
    else:
        note(f"{state}: {workspace}")


def _show(found: Lifecycle, *, json: bool) -> None:
    from bastide.cli.output import show_fields, show_json

    if json:
        show_json(found.model_dump(mode="json", exclude={"workspace"}))
        return
    info, operation = found.restart_info or {}, found.operation
    most = f" of at most {found.max_restarts}" if found.max_restarts else ""
    show_fields(
        [
            ("mode", found.mode),
            ("status", found.status),
            ("uptime s", f"{found.uptime or 0:g}"),
            ("restart policy", found.restart_policy),
            ("restarts", f"{info.get('count', 0)}{most}"),
            *(
                [
                    ("ttl", found.ttl),
                    ("at its end", found.ttl_action),
                    ("ends", found.ttl_expires_at),
                    ("remove on exit", "yes" if found.remove_on_exit else "no"),
                ]
                if found.ttl
                else []
            ),
            ("operation", None if operation is None else f"{operation.kind}: {operation.message}"),
            ("pause", _able(found.pause_supported, None)),
            ("snapshot", _able(found.snapshot_supported, found.snapshot_unavailable_reason)),
        ]
    )


def _show_ends(ends: list[dict[str, Any]]) -> None:
    """The ends that nobody asked for, newest first, and what followed."""
    from bastide.cli.output import show_table

    if not ends:
        return
    typer.echo("\nended, newest first:")
    show_table(
        ("AT", "CAUSE", "CODE", "SIGNAL", "MEMORY RAN OUT", "RESTARTED", "REASON"),
        (
            (
                str(end.get("at", ""))[:19],
                end.get("cause"),
                end.get("code"),
                end.get("signal"),
                "yes" if end.get("oom") else "no",
                f"after {end.get('delay') or 0:g} s" if end.get("restarted") else "no",
                end.get("reason"),
            )
            for end in ends
        ),
    )


def _able(supported: bool | None, reason: str | None) -> str | None:  # noqa: FBT001 - as it came
    if supported is None:
        return None
    return "possible" if supported else f"not possible{f': {reason}' if reason else ''}"


def seconds(text: str | None) -> str | int | None:
    """A duration as the API takes it: a bare number is seconds."""
    return int(text) if text is not None and text.isdigit() else text
