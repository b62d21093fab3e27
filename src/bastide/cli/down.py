"""`bastide down`: stop the cloud."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bastide.cli.options import Yes

if TYPE_CHECKING:
    from bastide.settings import Settings

GRACE = 20.0
STOP_SECONDS = 90.0
POLL = 0.05
MIN_DEPTH = 3


def down(
    *,
    machines: Annotated[
        bool, typer.Option("--machines", help="Stop the workspaces too; their disks are kept.")
    ] = False,
    purge: Annotated[
        bool,
        typer.Option(
            "--purge", help="Stop everything and delete all: workspaces, disks, images, keys."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Stop edge, api and node. Workspaces keep running, unless --machines is given.

    While the cloud is down nobody can reach a workspace from outside; what runs in it goes on,
    and the next `bastide up` finds it again.
    """
    from bastide.cli.configuration import server_settings
    from bastide.cli.fault import need_root
    from bastide.cli.output import ask, note

    need_root("stopping the cloud")
    settings = server_settings()
    if purge:
        ask(f"Delete every workspace and everything in {settings.state_dir}?", yes=yes)
    stopped = _stop_services(settings)
    note(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    if machines or purge:
        _end_machines(settings, delete=purge)
    if purge:
        _purge(settings)
        note(f"deleted: {settings.state_dir}, {settings.run_dir}")


def _stop_services(settings: Settings) -> list[str]:
    """Stop the supervisor, which stops the rest; or the rest, when it is dead."""
    import signal

    from bastide.cli.fault import Fault
    from bastide.cli.up import running
    from bastide.supervisor.record import Record, record_path
    from bastide.supervisor.supervisor import halt

    record = Record.read(record_path(settings.run_dir))
    supervisor = running(settings)
    if supervisor is None or record is None:
        return halt(settings.run_dir)
    supervisor.signal(signal.SIGTERM)
    if not supervisor.wait(STOP_SECONDS):
        raise Fault(
            f"the supervisor ({supervisor.pid}) has not ended within {STOP_SECONDS:g} seconds",
            f"look at {settings.state_dir}/log/supervisor.log",
        )
    return [entry.name for entry in reversed(record.entries) if entry.name != "guard"]


def _end_machines(settings: Settings, *, delete: bool) -> None:
    """Stop every machine, or delete it with its disk.

    A node is started for it, alone: the api would start again what it wants to run.
    """
    import asyncio

    from bastide.cli.fault import Fault
    from bastide.cli.output import note
    from bastide.engine.contract import EngineError
    from bastide.engine.local import LocalEngine

    async def end() -> int:
        engine = LocalEngine(settings.node_socket)
        try:
            found = await engine.poll()
            for machine in found:
                if delete:
                    await engine.delete(machine.id)
                elif machine.state in ("running", "paused", "starting"):
                    await engine.stop(machine.id, GRACE)
            return len(found)
        finally:
            await engine.close()

    with _node_alone(settings):
        try:
            count = asyncio.run(end())
        except EngineError as error:
            raise Fault(
                f"the workspaces could not be ended: {error.message}",
                "bastide status tells what runs; the node must run for this",
            ) from None
    note(f"workspaces {'deleted' if delete else 'stopped'}: {count}")


@contextlib.contextmanager
def _node_alone(settings: Settings) -> Iterator[None]:
    """A node without api and edge."""
    import asyncio
    import subprocess

    from bastide.cli.fault import Fault
    from bastide.supervisor.cloud import log_directory, make_directories, services
    from bastide.supervisor.log import Log
    from bastide.supervisor.process import Process

    make_directories(settings)
    node = services(settings)[0]
    launch = node.launch()
    log = Log(log_directory(settings) / "node.log")
    with log.open() as output:
        child = subprocess.Popen(
            launch.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=dict(launch.env),
            start_new_session=True,
        )
    process = Process.of(child)

    async def ready() -> bool:
        try:
            async with asyncio.timeout(node.patience):
                while process.alive and not await node.ready():  # noqa: ASYNC110
                    await asyncio.sleep(POLL)
        except TimeoutError:
            return False
        return process.alive

    try:
        if not asyncio.run(ready()):
            raise Fault("the node does not come up to end the workspaces", f"look at {log.path}")
        yield
    finally:
        process.end(node.grace)
        child.wait()


def _purge(settings: Settings) -> None:
    """Take away what a server leaves on a host once its machines are gone."""
    import asyncio
    import shutil

    from bastide.cli.fault import Fault
    from bastide.node.errors import NodeError
    from bastide.node.kernel import unmount
    from bastide.node.mounts import mounted
    from bastide.node.network.network import Network

    places = (settings.run_dir, settings.state_dir)
    for place in places:
        if len(place.resolve().parts) < MIN_DEPTH:
            raise Fault(f"{place} is too near the root to be deleted", "delete it by hand")

    async def teardown() -> None:
        network = Network(settings)
        try:
            await network.teardown()
        finally:
            await network.close()

    try:
        asyncio.run(teardown())
        for place in places:
            for point in reversed(mounted(place.resolve())):
                unmount(point, lazy=True)
            if place.exists():
                # Links in it are removed, never followed.
                shutil.rmtree(place)
    except (NodeError, OSError) as error:
        raise Fault(f"not everything could be removed: {error}", "run it again") from None
