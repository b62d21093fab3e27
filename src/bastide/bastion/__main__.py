"""`python -m bastide.bastion`: the bastion, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import asyncssh
import structlog
import uvloop

from bastide.bastion.doors import Doors
from bastide.bastion.server import Bastion
from bastide.domain.ssh import HostKey
from bastide.identity import UnknownUserError, become, identity_of
from bastide.log import configure_log
from bastide.settings import Settings, SettingsError, settings

log = structlog.get_logger(__name__)

HOST_KEY = "host_key"
KEY_BYTES = 16 * 1024


class BastionError(Exception):
    """The bastion cannot be set up; the message says what to do."""


def make_directory(chosen: Settings) -> None:
    """The directory of the host key, given to the bastion's user; as root, before it is given up.

    Raises:
        UnknownUserError: there is no such user.
    """
    for path in (chosen.state_dir, chosen.bastion_dir):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return
    user = identity_of(chosen.ssh_user)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(chosen.bastion_dir, flags)
    try:
        os.fchown(folder, user.uid, user.gid)
        os.fchmod(folder, 0o755)
    finally:
        os.close(folder)


def host_key(directory: Path) -> asyncssh.SSHKey:
    """The bastion's own key, made on first use: `host_key` (0600) and `host_key.pub`.

    Raises:
        BastionError: the file holds no key.
    """
    private, public = directory / HOST_KEY, directory / f"{HOST_KEY}.pub"
    if not private.exists():
        made = HostKey.make()
        _write(private, made.private, 0o600)
    with private.open("rb") as file:
        content = file.read(KEY_BYTES)
    try:
        key = asyncssh.import_private_key(content)
    except asyncssh.KeyImportError as error:
        raise BastionError(
            f"{private} holds no key ({error}); remove it to get a new one"
        ) from None
    _write(public, key.export_public_key().decode(), 0o644)
    return key


def _write(path: Path, text: str, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.chmod(mode)
    fresh.replace(path)


def bind(address: str) -> socket.socket:
    """Listen at `host:port`; as root, which ports below 1024 need.

    Raises:
        BastionError: the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server(
            (host.strip("[]"), int(port)),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=256,
        )
    except (OSError, ValueError, OverflowError) as error:
        raise BastionError(f"listen.ssh {address} cannot be had: {error}") from None


async def run(chosen: Settings, listening: socket.socket, key: asyncssh.SSHKey) -> None:
    """Serve until SIGTERM or SIGINT."""
    bastion = Bastion(Doors(chosen.bastion_map, chosen.network.subnet))
    server = await bastion.listen(listening, key)
    watching = asyncio.create_task(bastion.watch())
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    log.info("bastion.ready", listen=chosen.listen.ssh, key=key.get_fingerprint())
    ended = asyncio.create_task(stopping.wait())
    await asyncio.wait([ended, watching], return_when=asyncio.FIRST_COMPLETED)
    server.close()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


def main() -> int:
    """Run the bastion.

    Returns:
        0 after an ordinary end, 1 when it cannot be set up.
    """
    try:
        chosen = settings()
        os.umask(0o022)
        make_directory(chosen)
        listening = bind(chosen.listen.ssh)
        become(chosen.ssh_user, "/")
        key = host_key(chosen.bastion_dir)
        configure_log(chosen.log)
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(chosen, listening, key))
    except (SettingsError, UnknownUserError, BastionError, OSError) as error:
        sys.stderr.write(f"bastide-bastion: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
