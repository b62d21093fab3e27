"""Remove what belongs to no machine: the traces of a node or a machine that died half-way."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from bastide.domain.machine import WORKSPACE_ID
from bastide.node.errors import NodeError
from bastide.node.machines.fleet import Fleet
from bastide.node.machines.host import Host
from bastide.node.mounts import mounted

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Swept:
    """What a sweep removed: `kinds` counts machines by the kind of trace they had left.

    `drafts` are half-made disks. `strays` are disks of no machine, which are told of and kept:
    they are somebody's data. `network` is what the network counted.
    """

    kinds: dict[str, int]
    drafts: int
    strays: int
    network: Any


async def sweep(host: Host, fleet: Fleet) -> Swept:
    """Compare the host with the machines and remove the difference; says so in the log.

    A machine that is being worked on counts as running, so this may be called at any time.
    """
    traces = await asyncio.to_thread(_traces, host)
    kinds: Counter[str] = Counter()
    for machine, found in traces.items():
        if machine not in fleet.running() and await fleet.clean(machine):
            kinds.update(found)
    drafts = [
        path for path in host.disks.drafts() if path.stem.removeprefix(".") not in fleet.known
    ]
    for draft in drafts:
        draft.unlink(missing_ok=True)
    network = await host.network.sweep(fleet.running())
    for machine in network.dark:
        with suppress(NodeError):  # it is just being made, or ended meanwhile
            await fleet.relink(machine)
    swept = Swept(
        kinds=dict(kinds),
        drafts=len(drafts),
        strays=len(set(host.disks.all()) - fleet.known),
        network=network,
    )
    log = _log.warning if swept.kinds or swept.drafts or swept.strays else _log.info
    log("node.swept", kinds=swept.kinds, drafts=swept.drafts, strays=swept.strays,
        network=str(swept.network))  # fmt: skip
    return swept


def _traces(host: Host) -> dict[str, set[str]]:
    """Every machine that left something on this host: id → kinds of traces."""
    found: dict[str, set[str]] = {}

    def note(machine: str, kind: str) -> None:
        if re.match(WORKSPACE_ID, machine):
            found.setdefault(machine, set()).add(kind)

    for machine in host.runc.known():
        note(machine, "containers")
    for machine in host.cgroups.known():
        note(machine, "cgroups")
    base = host.machines_dir
    for point in mounted(base):
        if point != base:
            note(point.relative_to(base).parts[0], "mounts")
    if base.is_dir():
        for path in base.iterdir():
            note(path.name, "directories")
    for file in host.disks.attached():
        note(file.stem, "loops")
    return found
