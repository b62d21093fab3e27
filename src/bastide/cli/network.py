"""`bastide network`: what a workspace reaches, and what reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bastide.cli.options import Json, WorkspaceName

if TYPE_CHECKING:
    from bastide.client import Network

app = typer.Typer(help="Network of workspaces.", no_args_is_help=True)
NONE = "none"
Caller = Annotated[str, typer.Argument(metavar="CALLER", help="Id or slug of the one that calls.")]


@app.command()
def show(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Show address and policy."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        _show(client.workspaces.network.get(workspace), json=json)


@app.command("set")
def set_(
    workspace: WorkspaceName,
    *,
    internet: Annotated[bool | None, typer.Option(help="Whether it reaches the internet.")] = None,
    public: Annotated[bool | None, typer.Option(help="Whether the gateway reaches it.")] = None,
    ports: Annotated[
        str | None, typer.Option(help='Its open ports: "80,443"; "none" closes all.')
    ] = None,
    sources: Annotated[
        str | None, typer.Option(help='Addresses and ranges that may connect; "none": nobody.')
    ] = None,
    egress: Annotated[
        str | None,
        typer.Option(help='Addresses, ranges and names it may reach; "none": no restriction.'),
    ] = None,
    egress_ports: Annotated[
        str | None, typer.Option(help='Ports it may connect to; "none": no restriction.')
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option(help='Megabits a second, each way; "none": no own limit.')
    ] = None,
    json: Json = False,
) -> None:
    """Change what is given, at once. Lists are written with commas and replace the list."""
    from bastide.cli.connection import cloud
    from bastide.cli.fault import Fault

    changes: dict[str, Any] = {
        "allow_internet": internet,
        "public_access": public,
        "ingress_ports": _numbers(ports, "--ports"),
        "ingress": _words(sources),
        "egress": _words(egress),
        "egress_ports": _numbers(egress_ports, "--egress-ports"),
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if bandwidth is not None:
        changes["bandwidth_mbps"] = _number(bandwidth)
    if not changes:
        raise Fault("nothing to change was given", "see bastide network set --help", code=2)
    with cloud() as client:
        _show(client.workspaces.network.update(workspace, **changes), json=json)


@app.command()
def blocked(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Show what the workspace was refused lately, and why."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import note, show_json, show_table

    with cloud() as client:
        log = client.workspaces.network.blocked(workspace)
    if json:
        show_json(log.model_dump(mode="json"))
        return
    show_table(
        ("LAST", "COUNT", "PROTOCOL", "DESTINATION", "PORT", "NAME", "REASON"),
        (
            (
                entry.time.astimezone().strftime("%m-%d %H:%M:%S"),
                entry.count,
                entry.protocol,
                entry.destination,
                entry.port,
                entry.name,
                entry.reason,
            )
            for entry in log.blocked
        ),
    )
    note(f"{log.packets} packets were refused since it was started")


@app.command()
def link(workspace: WorkspaceName, caller: Caller, *, json: Json = False) -> None:
    """Let another workspace connect to this one, at its open ports."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        networks = client.workspaces.network
        callers = [one.workspace_id for one in networks.get(workspace).private_links]
        wanted = [*callers, client.workspaces.get(caller).id]
        _show(networks.update(workspace, private_link_ids=wanted), json=json)


@app.command()
def unlink(workspace: WorkspaceName, caller: Caller, *, json: Json = False) -> None:
    """Take that back; connections end."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        networks = client.workspaces.network
        gone = client.workspaces.get(caller).id
        callers = [one.workspace_id for one in networks.get(workspace).private_links]
        wanted = [one for one in callers if one != gone]
        _show(networks.update(workspace, private_link_ids=wanted), json=json)


@app.command()
def ip(
    workspace: WorkspaceName,
    address: Annotated[str, typer.Argument(help='One of `addresses`; "none": the server\'s.')],
    *,
    json: Json = False,
) -> None:
    """Choose the address it is seen as outside; connections that are there keep theirs."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        chosen = None if address == NONE else address
        _show(client.workspaces.network.use_ip(workspace, chosen), json=json)


@app.command()
def addresses(*, json: Json = False) -> None:
    """List the outbound addresses that can be chosen."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json, show_table

    with cloud() as client:
        found = client.workspaces.network.addresses()
    if json:
        show_json(found)
    else:
        show_table(("ADDRESS",), ((one,) for one in found))


def _show(network: Network, *, json: bool) -> None:
    from bastide.cli.output import show_fields, show_json

    if json:
        show_json(network.model_dump(mode="json"))
        return
    links = [f"{one.name or one.workspace_id} ({one.ip})" for one in network.private_links]
    if network.hidden_links:
        links.append(f"{network.hidden_links} that these credentials do not see")
    limit = network.bandwidth_mbps
    show_fields(
        (
            ("address", network.ip),
            ("public access", "yes" if network.public_access else "no"),
            ("open ports", _list(network.ingress_ports)),
            ("may connect", _list(network.ingress)),
            ("linked callers", ", ".join(links)),
            ("internet", "yes" if network.allow_internet else "no"),
            ("may reach", _list(network.egress) or "everything outside"),
            ("at ports", _list(network.egress_ports) or "all"),
            ("seen as", network.outbound_ip or "the server"),
            ("bandwidth", f"{limit:g} Mbit/s" if limit else "no limit of its own"),
            ("in force", "yes" if network.in_force else "not yet: the machine is not reached"),
        )
    )


def _list(items: list[Any]) -> str:
    return ", ".join(map(str, items))


def _words(text: str | None) -> list[str] | None:
    """A list written with commas; None: not given."""
    if text is None:
        return None
    return [] if text == NONE else [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str | None, option: str) -> list[int] | None:
    from bastide.cli.fault import Fault

    words = _words(text)
    if words is None:
        return None
    if not all(word.isascii() and word.isdigit() for word in words):
        raise Fault(f'{option} takes ports such as "80,443", or "none"', code=2)
    return [int(word) for word in words]


def _number(text: str) -> float | None:
    from bastide.cli.fault import Fault

    if text == NONE:
        return None
    try:
        return float(text)
    except ValueError:
        raise Fault('--bandwidth takes a number of megabits a second, or "none"', code=2) from None
