"""Whether snapshots work on this host: tried with a tiny machine, not guessed.

A success counts for this kernel, criu, runc and agent and is not tried again; a failure may have
been the moment's, so the next start of the node tries anew.
"""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from bastide.domain.machine import AGENT_ARGV, MachineSpec, Resources
from bastide.node.errors import NodeError
from bastide.node.machines.container import Container
from bastide.node.machines.host import Host
from bastide.node.machines.idrange import IdRange, free_range
from bastide.node.machines.machine import Machine
from bastide.node.snapshots import SnapshotRecord, open_images, shown

MACHINE = "ws_" + "f" * 32
"""The machine that is tried; no workspace has this id."""
DEADLINE = 45.0
_MOST_KEPT = 8
_SHAPE = "2"
"""To be raised when machines are put together otherwise: what was proven before is tried anew."""
_CACHE = Path("runtime/rehearsals.json")
_FAILURE = "rehearsal.failed"
"""Beside it: the kernel it was tried on, and why the last trial failed."""
_NOT_YET = "they have not been tried on this host yet"
_log = structlog.get_logger(__name__)


class Rehearsal:
    """`reason` is why snapshots cannot be had; None once they have been proven to work."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._cache = host.settings.state_dir / _CACHE
        self._failure = self._cache.with_name(_FAILURE)
        self.reason: str | None = _NOT_YET
        self.tried = False

    async def run(self, taken: Iterable[IdRange]) -> None:
        """Find out, unless it is known; `taken` are the host ids of other machines."""
        image = next((each for each in self._host.images.list() if each.ready), None)
        lacking = self._host.criu.lacking
        if self._host.argv != AGENT_ARGV:
            lacking = "the first process of the machines is not the agent"
        if lacking or image is None or image.digest is None:
            self.reason = lacking or "no image is built yet to try them with"
            return
        self.tried = True
        key = self._key()
        if key in _known(self._cache):
            self.reason = None
            self._tell()
            return
        try:
            async with asyncio.timeout(DEADLINE):
                await self._try(image.id, image.digest, taken)
        except TimeoutError:
            self.reason = f"a trial did not end within {DEADLINE:.0f} seconds"
        except NodeError as error:
            self.reason = f"a trial failed: {error.message}"
        except OSError as error:
            self.reason = f"a trial failed: {error}"
        else:
            self.reason = None
            self._keep(key)
        self._tell()
        _log.info("node.rehearsed", snapshots=self.reason is None, reason=self.reason)

    async def _try(self, image: str, digest: str, taken: Iterable[IdRange]) -> None:
        """Boot, capture, end, and bring back; nothing is left of it."""
        host = self._host
        machine = Container(MACHINE, host)
        ids = free_range(host.settings.machines.id_base, [*taken, *host.snapshots.ranges()])
        sizes = Resources(cpus=1, memory_mb=128, disk_mb=64)
        spec = MachineSpec(id=MACHINE, image=image, resources=sizes)
        await self._clear(machine)
        try:
            await asyncio.to_thread(host.network.reserve, MACHINE)
            await asyncio.to_thread(host.disks.create, MACHINE, sizes.disk_mb)
            boot = await machine.boot(spec, digest, ids)
            async with host.snapshots.draft(MACHINE) as draft:
                await machine.capture(draft, spec, ending=True)
                await asyncio.to_thread(open_images, draft.memory)
                at = datetime.now(UTC)
                told = await asyncio.to_thread(shown, MACHINE, draft, at, spec, taken_ms=0)
                record = SnapshotRecord(
                    name=draft.path.name,
                    shown=told,
                    spec=spec,
                    digest=digest,
                    bundle=boot.bundle,
                    first_id=ids.first,
                    boot=boot,
                )
                await asyncio.to_thread(host.snapshots.keep, MACHINE, record)
            await machine.kill()
            await machine.clean()
            disk = host.snapshots.place(record).disk
            await asyncio.to_thread(host.disks.stage, MACHINE, disk)
            await asyncio.to_thread(host.disks.replace, MACHINE)
            await machine.revive(spec, record, ids)
        finally:
            await asyncio.shield(self._clear(machine))

    async def _clear(self, machine: Machine) -> None:
        host = self._host
        await machine.clean()
        await asyncio.to_thread(host.snapshots.remove, MACHINE)
        await asyncio.to_thread(host.disks.remove, MACHINE)
        await asyncio.to_thread(host.network.release, MACHINE)

    def _tell(self) -> None:
        """Leave the reason for the doctor, or take it away."""
        with suppress(OSError):  # it is in the log and the capabilities too
            if self.reason is None:
                self._failure.unlink(missing_ok=True)
            else:
                self._failure.write_text(f"{platform.release()}\n{self.reason}")

    def _key(self) -> list[str]:
        criu, runc = self._host.criu.version, self._host.runc.version
        return [
            platform.release(),
            criu.text if criu else "",
            runc.text if runc else "",
            self._host.bundle().name,
            _SHAPE,
        ]

    def _keep(self, key: list[str]) -> None:
        draft = self._cache.with_suffix(".new")
        draft.write_text(json.dumps([*_known(self._cache), key][-_MOST_KEPT:]))
        draft.replace(self._cache)


def proven(state_dir: Path) -> bool:
    """Whether snapshots have been proven to work on this kernel, with whatever criu was there."""
    return any(key[:1] == [platform.release()] for key in _known(state_dir / _CACHE))


def failed(state_dir: Path) -> str | None:
    """Why the last trial of snapshots on this kernel failed; None: it did not."""
    with suppress(OSError, ValueError):
        release, _, reason = (state_dir / _CACHE).with_name(_FAILURE).read_text().partition("\n")
        return reason if release == platform.release() and reason else None
    return None


def _known(cache: Path) -> list[list[str]]:
    with suppress(OSError, ValueError):
        found = json.loads(cache.read_text())
        return [key for key in found if isinstance(key, list)] if isinstance(found, list) else []
    return []
