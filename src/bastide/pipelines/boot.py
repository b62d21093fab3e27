"""Booting a machine: shared by creation, start and restart."""

from __future__ import annotations

from bastide.domain.machine import MachineSpec, MachineStatus
from bastide.domain.operation import Phase
from bastide.engine.contract import EngineError, EngineUnavailable, UnknownMachine
from bastide.pipelines.pipeline import Job, Tools
from bastide.services.machines import spec_of


async def boot(tools: Tools, job: Job) -> MachineStatus:
    """Start the machine and wait until its agent answers.

    A machine the engine no longer knows (its host was set up anew) is made again first.

    Raises:
        EngineError: it does not boot.
    """
    spec = spec_of(job.row, tools.pids)
    job.show(Phase.STARTING, "Starting the machine")
    try:
        return await tools.engine.start(spec)
    except UnknownMachine:
        return await make_and_boot(tools, job, spec)


async def make_and_boot(tools: Tools, job: Job, spec: MachineSpec) -> MachineStatus:
    """Reserve address and disk, then boot."""
    job.show(Phase.PREPARING, "Preparing disk and address")
    await tools.engine.create(spec)
    job.show(Phase.STARTING, "Starting the machine")
    return await tools.engine.start(spec)


def reason(error: EngineError, code: str) -> dict[str, str]:
    """The `error` of an operation that the engine refused; `code` unless it could not be asked."""
    if isinstance(error, EngineUnavailable):
        code = error.code
    return {"code": code, "message": error.message}
