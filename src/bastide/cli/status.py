"""`bastide status`: what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from bastide.cli.options import Json

if TYPE_CHECKING:
    from bastide.settings import Settings
    from bastide.supervisor.record import Entry

PATIENCE = 5.0


def status(*, json: Json = False) -> None:
    """Show the processes of this server and how many workspaces run.

    Exit code 0 when everything runs, 1 when something does not.
    """
    from bastide.cli.configuration import server_settings
    from bastide.cli.output import age, show_fields, show_json, show_table

    found = facts(server_settings())
    if json:
        show_json(found)
    else:
        show_table(
            ("PROCESS", "STATE", "PID", "AGE", "RESTARTS", "LAST EXIT"),
            (
                (
                    name,
                    item["state"],
                    item["pid"],
                    None if item["age_seconds"] is None else age(item["age_seconds"]),
                    item["restarts"],
                    item["last_exit"],
                )
                for name, item in found["processes"].items()
            ),
        )
        typer.echo()
        counts = found["workspaces"]
        machines = (
            "the node does not answer"
            if counts is None
            else ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"
        )
        show_fields(
            [("workspaces", machines), ("API", found["api_url"]), ("gateway", found["gateway_url"])]
        )
    if not found["running"]:
        raise typer.Exit(1)


def facts(settings: Settings) -> dict[str, Any]:
    """Everything `--json` prints."""
    from bastide.supervisor.record import Entry, Record, record_path

    record = Record.read(record_path(settings.run_dir))
    entries: list[Entry] = []
    if record is not None:
        mine = Entry("supervisor", "stopping" if record.stopping else "running", record.supervisor)
        entries = [mine, *record.entries]
    processes = {entry.name: _process(entry) for entry in entries}
    for name in ("supervisor", "guard", "node", "resolver", "api", "edge", "bastion"):
        processes.setdefault(name, _process(Entry(name, "stopped")))
    return {
        "running": all(item["state"] == "running" for item in processes.values()),
        "processes": processes,
        "workspaces": _machines(settings),
        "api_url": settings.api_url,
        "gateway_url": settings.gateway_url,
        "state_dir": str(settings.state_dir),
    }


def _process(entry: Entry) -> dict[str, Any]:
    process = entry.process
    alive = process is not None and process.alive
    # The record may be of a supervisor that was killed: what is dead does not run.
    state = "dead" if entry.state in ("starting", "running") and not alive else entry.state
    return {
        "state": state,
        "pid": process.pid if process and alive else None,
        "start_time": process.started if process and alive else None,
        "age_seconds": round(process.age, 1) if process and alive else None,
        "restarts": entry.restarts,
        "last_exit": entry.last_exit,
    }


def _machines(settings: Settings) -> dict[str, int] | None:
    """How many machines there are in each state, or None when the node does not answer."""
    import asyncio

    from bastide.engine.contract import EngineError
    from bastide.engine.local import LocalEngine

    async def count() -> dict[str, int]:
        engine = LocalEngine(settings.node_socket)
        counts: dict[str, int] = {}
        try:
            async with asyncio.timeout(PATIENCE):
                machines = await engine.poll()
            for machine in machines:
                counts[machine.state.value] = counts.get(machine.state.value, 0) + 1
        finally:
            await engine.close()
        return counts

    if not settings.node_socket.exists():
        return None
    try:
        return asyncio.run(count())
    except (EngineError, TimeoutError):
        return None
