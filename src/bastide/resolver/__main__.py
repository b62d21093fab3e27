"""`python -m bastide.resolver`: the resolver on the gateway address."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
from contextlib import suppress

import structlog
import uvloop

from bastide.identity import UnknownUserError, become
from bastide.log import configure_log
from bastide.resolver.answers import Answers
from bastide.resolver.node import Node
from bastide.resolver.server import bind, serve
from bastide.resolver.upstream import Upstream
from bastide.settings import Settings, SettingsError, settings

FILES = 16384
"""Open sockets: one for each question that is asked upstream."""

_log = structlog.get_logger(__name__)


async def run(chosen: Settings, udp: socket.socket, tcp: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT.

    Raises:
        Exception: one of its two tasks has failed. Without the node nothing new would be granted,
            so the process ends, to be started again.
    """
    upstream = Upstream(chosen.network.nameservers, chosen.network.subnet)
    node = Node(chosen.resolver_socket)
    tasks = [
        asyncio.create_task(node.run()),
        asyncio.create_task(serve(Answers(node, upstream), udp, tcp)),
    ]
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    _log.info("resolver.ready", upstream=upstream.servers)
    if not upstream.servers:
        _log.warning(
            "workspaces cannot resolve names: this host has no name server; set network.nameservers"
        )
    ended = asyncio.create_task(stopping.wait())
    await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, *tasks):
        task.cancel()
    with suppress(asyncio.CancelledError):
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def _allow_files() -> None:
    """Let this process have many sockets; what it was started with may be a thousand."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """Run the resolver.

    Returns:
        0 after an ordinary end, 1 when it cannot be set up.
    """
    try:
        chosen = settings()
        gateway = chosen.network.subnet.network_address + 1
        try:
            udp, tcp = bind(gateway)
        except OSError as error:
            sys.stderr.write(
                f"bastide-resolver: port 53 of {gateway} cannot be had ({error.strerror}): "
                "another name server takes it on all addresses; let it listen on its own only\n"
            )
            return 1
        _allow_files()
        become(chosen.resolver_user, "/")
    except (SettingsError, UnknownUserError) as error:
        sys.stderr.write(f"bastide-resolver: {error}\n")
        return 1
    configure_log(chosen.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(chosen, udp, tcp))
    return 0


if __name__ == "__main__":
    sys.exit(main())
