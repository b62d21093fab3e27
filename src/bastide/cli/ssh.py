"""`bastide ssh`: connect; `bastide workspace ssh`: who may."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bastide.cli.options import Json, WorkspaceName

if TYPE_CHECKING:
    from bastide.client import Bastide, SshConnection, SshStatus

app = typer.Typer(help="SSH into a workspace: on, off, password, keys.", no_args_is_help=True)
KEY = "bastide_ed25519"
KNOWN_HOSTS = "bastide_known_hosts"
Fingerprint = Annotated[str, typer.Argument(help="As `bastide workspace ssh keys` shows it.")]


def connect(
    workspace: WorkspaceName,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- CMD [ARGS]...]", help="What to run.")
    ] = None,
    *,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give the command a terminal.")] = False,
    forward: Annotated[
        list[str] | None,
        typer.Option("--forward", "-L", help="As ssh -L: PORT:HOST:PORT; may be repeated."),
    ] = None,
) -> None:
    """Connect to a workspace: bastide ssh ID [-- CMD ARGS].

    Enables SSH if need be, and sets up a key of yours (~/.ssh/bastide_ed25519, made once). The
    servers' own keys are taken from the API, so nothing is to be confirmed. The exit code is the
    command's own, or 255 if there was no connection.
    """
    from bastide.cli.connection import cloud
    from bastide.cli.fault import Fault

    if shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        raise Fault("there is no ssh here", "apt-get install openssh-client", code=255)
    folder = Path.home() / ".ssh"
    key = own_key(folder)
    with cloud() as client:
        status = _let_in(client, workspace, key)
    if status.connection is None:
        raise Fault("the workspace tells no way to connect", "bastide workspace ssh status ID")
    known = remember(folder / KNOWN_HOSTS, status)
    argv = ssh_argv(status.connection, key, known)
    argv += ["-t"] if tty else []
    argv += [word for each in forward or () for word in ("-L", each)]
    argv += [f"{status.connection.user}@{status.connection.host}"]
    if command:
        # One word is a line for the shell, as with ssh; more are an argument list.
        argv += ["--", command[0] if len(command) == 1 else shlex.join(command)]
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606 - an argument list, no shell


def own_key(folder: Path) -> Path:
    """The caller's key for workspaces, made if there is none (0600, without passphrase).

    Raises:
        Fault: it cannot be made.
    """
    from bastide.cli.fault import Fault

    path = folder / KEY
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        done = subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bastide", "-f", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Fault(f"{path} cannot be made: {done.stderr.strip()}", code=255)
    return path


def remember(path: Path, status: SshStatus) -> Path:
    """Put the servers' keys, as the API tells them, in place of what was known of them."""
    fresh: dict[str, str] = {}
    connection = status.connection
    if connection is not None and status.host_key is not None:
        fresh[connection.host] = status.host_key.public_key
    if connection is not None and connection.bastion_host_key is not None:
        host, port = _address(connection.bastion)
        fresh[host if port == "22" else f"[{host}]:{port}"] = connection.bastion_host_key
    try:
        before = path.read_text().splitlines()
    except FileNotFoundError:
        before = []
    kept = [line for line in before if line.partition(" ")[0] not in fresh]
    lines = [*kept, *(f"{host} {key}" for host, key in fresh.items())]
    if lines != before:
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.chmod(0o600)
        new.replace(path)
    return path


def ssh_argv(connection: SshConnection, key: Path, known: Path) -> list[str]:
    """The command with this key and these known hosts alone, by way of the bastion."""
    host, port = _address(connection.bastion)
    options = [
        "-i", str(key),
        "-o", "IdentitiesOnly=yes",
        "-o", f"UserKnownHostsFile={_quoted(known)}",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes",
        "-o", "UpdateHostKeys=no",
    ]  # fmt: skip
    jump = ["ssh", *options, "-p", port, "-W", "[%h]:%p", f"{connection.user}@{host}"]
    # -J would not pass key and known hosts on; a percent sign in a path is no token of ssh.
    words = [word if word == "[%h]:%p" else word.replace("%", "%%") for word in jump]
    return ["ssh", *options, "-o", f"ProxyCommand={shlex.join(words)}"]


def _quoted(path: Path) -> str:
    """A path as one word of ssh's own settings."""
    return '"' + str(path).replace("%", "%%") + '"'


def _address(bastion: str) -> tuple[str, str]:
    host, _, port = bastion.rpartition(":")
    return (host.strip("[]"), port) if host else (port, "22")


def _let_in(client: Bastide, workspace: str, key: Path) -> SshStatus:
    """SSH enabled, and the key let in."""
    public = key.with_suffix(".pub").read_text().strip()
    ssh = client.workspaces.ssh
    status = ssh.status(workspace)
    if not status.ssh_enabled:
        status = ssh.enable(workspace)
    if not any(known.public_key.split()[:2] == public.split()[:2] for known in status.keys):
        status = ssh.add_key(workspace, public)
    return status


@app.command()
def status(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Show whether SSH is enabled, how to connect, and the fingerprint to expect."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        _show(client.workspaces.ssh.status(workspace), json=json)


@app.command()
def enable(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Enable SSH; a one-time password is shown this once."""
    from bastide.cli.connection import cloud

    with cloud() as client:
        _show(client.workspaces.ssh.enable(workspace), json=json)


@app.command()
def disable(workspace: WorkspaceName) -> None:
    """Disable SSH; open sessions end."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import note

    with cloud() as client:
        client.workspaces.ssh.disable(workspace)
    note(f"SSH disabled: {workspace}")


@app.command()
def password(workspace: WorkspaceName) -> None:
    """Set the password: asked for, or the first line of standard input when it is piped."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import note

    if sys.stdin.isatty():
        given = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        given = sys.stdin.readline().rstrip("\n")
    with cloud() as client:
        client.workspaces.ssh.set_password(workspace, given)
    note(f"password set: {workspace}")


@app.command()
def keys(workspace: WorkspaceName, *, json: Json = False) -> None:
    """List the keys that open a workspace."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_json, show_table

    with cloud() as client:
        found = client.workspaces.ssh.keys(workspace)
    if json:
        show_json([key.model_dump(mode="json") for key in found])
        return
    show_table(
        ("FINGERPRINT", "TYPE", "COMMENT"), ((k.fingerprint, k.type, k.comment) for k in found)
    )


@app.command("add-key")
def add_key(
    workspace: WorkspaceName,
    file: Annotated[Path, typer.Argument(help="A public key: ~/.ssh/id_ed25519.pub")],
) -> None:
    """Let a key in."""
    from bastide.cli.connection import cloud
    from bastide.cli.fault import Fault
    from bastide.cli.output import note

    try:
        public = file.read_text().strip()
    except (OSError, ValueError) as error:
        raise Fault(f"{file} cannot be read: {error}", "name a .pub file", code=2) from None
    with cloud() as client:
        client.workspaces.ssh.add_key(workspace, public)
    note(f"key added: {workspace}")


@app.command("remove-key")
def remove_key(workspace: WorkspaceName, fingerprint: Fingerprint) -> None:
    """Let a key in no more."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import note

    with cloud() as client:
        client.workspaces.ssh.remove_key(workspace, fingerprint)
    note(f"key removed: {workspace}")


def _show(found: SshStatus, *, json: bool) -> None:
    from bastide.cli.output import note, show_fields, show_json

    if json:
        show_json(found.model_dump(mode="json", exclude_none=True))
        return
    connection, host_key = found.connection, found.host_key
    show_fields(
        [
            ("enabled", "yes" if found.ssh_enabled else "no"),
            ("name", found.ssh_id),
            ("command", connection.command if connection else None),
            ("upload", connection.scp_upload if connection else None),
            ("download", connection.scp_download if connection else None),
            ("host key", host_key.fingerprint if host_key else None),
            ("keys", len(found.keys)),
            *([("password", found.ssh_password)] if found.ssh_password else []),
        ]
    )
    if found.ssh_password:
        note("the password is not shown again")
