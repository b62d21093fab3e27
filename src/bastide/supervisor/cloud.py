"""The services of one server, in the order they start: node, resolver, api, edge, bastion."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bastide.edge import haproxy
from bastide.settings import Settings
from bastide.supervisor.probe import address_answers, greets, socket_answers
from bastide.supervisor.process import Process
from bastide.supervisor.record import record_path
from bastide.supervisor.service import Launch, Service
from bastide.supervisor.supervisor import Supervisor

# Isolated: neither the directory it is started in nor PYTHON* variables decide what is imported.
PYTHON = (sys.executable, "-I", "-m")
_OF_CLIENTS = frozenset({"BASTIDE_CLIENT_ID", "BASTIDE_CLIENT_SECRET", "BASTIDE_TOKEN"})
_OF_DATABASE = "BASTIDE_DATABASE"


def log_directory(settings: Settings) -> Path:
    """Where each service writes its log."""
    return settings.state_dir / "log"


def make_directories(settings: Settings) -> None:
    """Make what the supervisor itself needs; each service makes its own."""
    for path in (settings.state_dir, settings.run_dir):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    log_directory(settings).mkdir(mode=0o750, exist_ok=True)


def services(settings: Settings) -> list[Service]:
    """Node, resolver, api, edge and bastion of this server."""
    env = service_environment()

    def edge() -> Launch:
        launch = haproxy.prepare(settings)
        return Launch(launch.argv, {**env, **launch.environment})

    return [
        Service(
            "node",
            lambda: Launch((*PYTHON, "bastide.node"), env),
            ready=lambda: socket_answers(settings.node_socket, "/v1/health"),
        ),
        Service("resolver", lambda: Launch((*PYTHON, "bastide.resolver"), env)),
        Service(
            "api",
            # It starts as root, makes its directories and gives root up for good.
            lambda: Launch((*PYTHON, "bastide.api"), service_environment(database=True)),
            ready=lambda: socket_answers(settings.api_socket, "/healthz"),
        ),
        Service(
            "edge",
            edge,
            ready=lambda: address_answers(settings.listen.api, "/healthz"),
            # HAProxy makes its output non-blocking, and loses the appending by that.
            appends=False,
        ),
        Service(
            "bastion",
            lambda: Launch((*PYTHON, "bastide.bastion"), env),
            ready=lambda: greets(settings.listen.ssh, b"SSH-2.0-"),
        ),
    ]


def supervisor_command() -> tuple[str, ...]:
    """What starts a supervisor in the background."""
    return (*PYTHON, "bastide.supervisor")


def guard_launch(settings: Settings, me: Process) -> Launch:
    """The guard that watches the supervisor `me`."""
    watched = (str(record_path(settings.run_dir)), str(me.pid), str(me.started))
    command = (*PYTHON, "bastide.supervisor.guard", *watched, *supervisor_command())
    # The supervisor it starts starts the api.
    return Launch(command, service_environment(database=True))


def cloud_supervisor(
    settings: Settings, echo: Callable[[str, str], None] | None = None
) -> Supervisor:
    """The supervisor of this server; its directories must be there."""
    return Supervisor(
        services(settings),
        settings.run_dir,
        log_directory(settings),
        guard=lambda me: guard_launch(settings, me),
        echo=echo,
    )


def service_environment(
    inherited: Mapping[str, str] | None = None, *, database: bool = False
) -> dict[str, str]:
    """What a service gets of the environment: our settings and a known PATH, nothing else.

    An operator's own key is for clients and goes to none of them; the database's URL, which may
    hold a password, only to those who need it (`database`).
    """
    source = os.environ if inherited is None else inherited
    return {
        **{
            name: value
            for name, value in source.items()
            if name.startswith("BASTIDE_")
            and name not in _OF_CLIENTS
            and (database or not name.startswith(_OF_DATABASE))
        },
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
    }
