"""`bastide workspace info`: what runs a workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bastide.cli.options import Json, WorkspaceName

if TYPE_CHECKING:
    from bastide.client import MachineInfo

MIB = 1024 * 1024


def info(workspace: WorkspaceName, *, json: Json = False) -> None:
    """Show what runs a workspace, how it last ended, and its snapshot."""
    from bastide.cli.connection import cloud
    from bastide.cli.output import show_fields, show_json

    with cloud() as client:
        found = client.workspaces.info(workspace)
    if json:
        # The answer has all of it twice: at its top, and below `info`.
        show_json(found.model_dump(mode="json", exclude={"info", "success"}))
        return
    show_fields(_machine(found))


def _machine(found: MachineInfo) -> list[tuple[str, object]]:
    """A machine for people: what there is nothing of is left out, but for its snapshot."""
    sizes = found.resources
    timings = ", ".join(f"{stage} {took:.0f}" for stage, took in found.boot_timings_ms.items())
    fields = [
        ("state", found.state),
        ("image", found.image),
        ("tier", _because(found.tier, found.tier_reason)),
        ("runtime", found.runtime),
        ("kernel", found.kernel),
        ("accelerator", _because(found.accelerator, found.accelerator_reason)),
        ("address", found.ip),
        ("cpus", None if sizes is None or sizes.cpus is None else f"{sizes.cpus:g}"),
        ("memory MiB", None if sizes is None else sizes.memory_mb),
        ("disk MiB", None if sizes is None else sizes.disk_size_mb),
        ("started", found.started_at),
        ("uptime s", f"{found.uptime or 0:g}"),
        ("boot ms", timings),
        ("last exit", _end(found.last_exit)),
        ("error", found.error),
    ]
    shown: list[tuple[str, object]] = [(name, value) for name, value in fields if value]
    return [*shown, ("snapshot", _captured(found))]


def _end(ended: dict[str, Any] | None) -> str | None:
    """How a machine ended, in a few words."""
    if ended is None:
        return None
    how = [f"{word} {ended[word]}" for word in ("code", "signal") if ended.get(word) is not None]
    how += ["memory ran out"] if ended.get("oom") else []
    how += ["as asked"] if ended.get("requested") else []
    how += [str(ended["reason"])] if ended.get("reason") else []
    return f"{ended.get('at')}: {', '.join(how) or 'nobody saw how'}"


def _captured(found: MachineInfo) -> str:
    """The last snapshot, or whether there can be one."""
    taken = found.snapshot
    if taken is None:
        reason = found.snapshot_unavailable_reason
        return f"none; not possible: {reason}" if found.snapshot_supported is False else "none"
    memory, disk = taken.memory_bytes / MIB, taken.disk_bytes / MIB
    return f"{taken.created_at}, memory {memory:.0f} MiB, disk {disk:.0f} MiB"


def _because(what: str | None, reason: str | None) -> str | None:
    return f"{what} ({reason})" if what and reason else what
