"""`bastide up`: start the cloud and keep it running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bastide.settings import Settings
    from bastide.supervisor.process import Process

POLL = 0.05
CRASHES = 3


def up(
    *,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Start in the background and return.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="With --detach: seconds until everything must answer.")
    ] = 90.0,
) -> None:
    """Start node, resolver, api, edge and bastion, and start them again when they end.

    In the foreground their logs are shown, and Ctrl-C stops them. Workspaces keep running
    whatever happens to these processes.
    """
    from bastide.cli.configuration import server_settings
    from bastide.cli.fault import Fault, need_root
    from bastide.cli.prepare import missing
    from bastide.supervisor.cloud import make_directories

    need_root("starting the cloud")
    settings = server_settings()
    lacking = missing(settings)
    if lacking:
        raise Fault(f"this host is not prepared: no {', no '.join(lacking)}", "bastide prepare")
    if running(settings) is None:
        _need_ports(settings)
    make_directories(settings)
    if detach:
        _detached(settings, timeout)
    else:
        _foreground(settings)


def running(settings: Settings) -> Process | None:
    """The supervisor that is alive, if there is one."""
    from bastide.supervisor.record import Record, record_path

    record = Record.read(record_path(settings.run_dir))
    return record.supervisor if record is not None and record.supervisor.alive else None


def _need_ports(settings: Settings) -> None:
    """Refuse to start where another program, or another cloud, would answer in our place."""
    from bastide.cli.fault import Fault
    from bastide.doctor.network import ports

    for finding in ports(settings):
        if finding.level == "fail":
            raise Fault(f"{finding.name}: {finding.says}", finding.todo)


def _foreground(settings: Settings) -> None:
    import asyncio

    from bastide.cli.fault import Fault
    from bastide.log import configure_log
    from bastide.supervisor.cloud import cloud_supervisor
    from bastide.supervisor.supervisor import AlreadyRunning, supervise

    configure_log(settings.log)

    def echo(service: str, line: str) -> None:
        typer.echo(f"[{service}] {line}")

    try:
        asyncio.run(supervise(cloud_supervisor(settings, echo)))
    except AlreadyRunning as error:
        raise Fault(str(error), "bastide status shows it, bastide down stops it") from None


def _detached(settings: Settings, timeout: float) -> None:
    import os
    import subprocess

    from bastide.cli.output import note
    from bastide.supervisor.cloud import supervisor_command
    from bastide.supervisor.process import Process

    began = time.monotonic()
    supervisor = running(settings)
    if supervisor is None:
        # It outlives this command on purpose, so nobody waits for it.
        child = subprocess.Popen(
            supervisor_command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env=dict(os.environ),
            start_new_session=True,
        )
        supervisor = Process.of(child)
    else:
        note(f"already running (supervisor {supervisor.pid})")
        child = None
    _wait(settings, supervisor, child, began + timeout)
    typer.echo(f"API      {settings.api_url}")
    typer.echo(f"gateway  {settings.gateway_url}")
    note(f"up after {time.monotonic() - began:.1f}s; logs in {settings.state_dir}/log")


def _wait(settings: Settings, supervisor: Process, child: object, end: float) -> None:
    """Return once every service is ready, telling each as it comes."""
    import subprocess

    from bastide.cli.fault import Fault
    from bastide.cli.output import note
    from bastide.supervisor.cloud import log_directory
    from bastide.supervisor.log import Log
    from bastide.supervisor.record import Entry, Record, record_path

    told: set[str] = set()
    troubled: Entry | None = None
    while time.monotonic() < end:
        record = Record.read(record_path(settings.run_dir))
        entries = record.entries if record is not None and record.supervisor == supervisor else ()
        for entry in entries:
            if entry.state == "running" and entry.name not in told:
                told.add(entry.name)
                if entry.name != "guard":
                    note(f"    {entry.name} is ready")
        if entries and all(entry.state == "running" for entry in entries):
            return
        if not supervisor.alive:
            said = ""
            if isinstance(child, subprocess.Popen):
                said = child.communicate()[1].decode(errors="replace").strip()
            raise Fault(
                f"the supervisor ended: {said or 'see its log'}",
                f"look at {log_directory(settings)}/supervisor.log",
            )
        troubled = next((entry for entry in entries if entry.restarts >= CRASHES), None)
        if troubled is not None:
            break
        time.sleep(POLL)
    waiting = troubled or next((e for e in entries if e.state != "running"), None)
    name = waiting.name if waiting else "supervisor"
    log = Log(log_directory(settings) / f"{name}.log")
    tail = "\n".join(f"    {line}" for line in log.tail(15))
    why = f" ({waiting.last_exit})" if waiting and waiting.last_exit else ""
    raise Fault(
        f"{name} does not come up{why}; the end of its log:\n{tail}",
        f"mend that (bastide doctor checks the host); whole log: {log.path}; "
        "it is tried again until bastide down",
    )
