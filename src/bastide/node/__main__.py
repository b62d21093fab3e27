"""`python -m bastide.node`: the node on its unix socket."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import uvicorn

from bastide.log import configure_log
from bastide.node.app import create_app
from bastide.node.errors import NodeError
from bastide.node.node import Node
from bastide.node.socket import listen, only_node
from bastide.settings import Settings, SettingsError, settings

_GRACE = 3
"""Seconds for answers under way when the node is asked to end; streams of events take no more."""


async def serve(chosen: Settings) -> bool:
    """Serve until SIGTERM or SIGINT; whether it ever came up. Machines go on afterwards.

    Raises:
        NodeError: another node runs, or the socket's group is missing.
    """
    with only_node(chosen.run_dir):
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(Node.of(chosen)),
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        await server.serve(sockets=[listen(chosen.node_socket, chosen.user)])
        return server.started


def main() -> int:
    """Run the node.

    Returns:
        0 after an ordinary end, 1 when it cannot be set up, 3 when starting failed.
    """
    try:
        chosen = settings()
        if os.geteuid() != 0:
            sys.stderr.write("bastide-node: it must run as root\n")
            return 1
        configure_log(chosen.log)
        os.umask(0o022)
        # uvicorn sends itself the signal again when it is done: then there is nothing left to do
        signal.signal(signal.SIGTERM, lambda *_: None)
        return 0 if asyncio.run(serve(chosen)) else 3
    except (SettingsError, NodeError) as error:
        sys.stderr.write(f"bastide-node: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
