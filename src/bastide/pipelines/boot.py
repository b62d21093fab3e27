"""Booting a machine, seeing what became of it, and why it did not: shared by the pipelines."""

from __future__ import annotations

from typing import Any

from bastide.domain.image import FAILURES
from bastide.domain.machine import ControlAddress, MachineSpec, MachineStatus
from bastide.domain.operation import Phase
from bastide.domain.reference import looks_like_one
from bastide.engine.contract import Engine, EngineError, EngineUnavailable, UnknownMachine
from bastide.pipelines.job import Job
from bastide.pipelines.tools import Tools
from bastide.services.machines import image_auth_of, observed, spec_of, unobserved

NO_IMAGE = "image_unavailable"
"""The engine's code for an image that is not there, and could be."""


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


async def make(tools: Tools, job: Job, spec: MachineSpec) -> MachineStatus:
    """Have the image, and reserve address and disk.

    A reference is looked up in its registry each time; an image of the catalogue is only built
    when it is not there.
    """
    if looks_like_one(spec.image):
        await _have_image(tools, job, spec)
    job.show(Phase.PREPARING, "Preparing disk and address")
    try:
        return await tools.engine.create(spec)
    except EngineError as error:
        if error.code != NO_IMAGE:
            raise
    await _have_image(tools, job, spec)
    job.show(Phase.PREPARING, "Preparing disk and address")
    return await tools.engine.create(spec)


async def _have_image(tools: Tools, job: Job, spec: MachineSpec) -> None:
    """Pull or build the image, telling how far it is."""

    def tell(message: str) -> None:
        job.show(Phase.PREPARING, f"Image {spec.image}: {message}")

    tell("looking it up")
    await tools.engine.pull(spec.image, image_auth_of(job.row), tell)


async def make_and_boot(tools: Tools, job: Job, spec: MachineSpec) -> MachineStatus:
    """Reserve address and disk, then boot."""
    await make(tools, job, spec)
    job.show(Phase.STARTING, "Starting the machine")
    return await tools.engine.start(spec)


async def boot_resting(tools: Tools, spec: MachineSpec) -> ControlAddress:
    """Boot a machine for its files alone, or find the one that an earlier pass has booted."""
    status = await tools.engine.start(spec)
    if status.control is None:
        raise EngineError("boot_failed", "the machine has no address")
    return status.control


async def seen(engine: Engine, workspace_id: str) -> dict[str, Any]:
    """The observed columns as the machine is now.

    Raises:
        EngineError: it cannot be seen.
    """
    try:
        return observed(await engine.status(workspace_id))
    except UnknownMachine:
        return unobserved()


def reason(error: EngineError, code: str) -> dict[str, str]:
    """The `error` of an operation that the engine refused; `code` unless it says more.

    That is: it could not be asked, or an image cannot be had.
    """
    if isinstance(error, EngineUnavailable) or error.code in FAILURES:
        code = error.code
    return {"code": code, "message": error.message}
