"""What an engine's refusal means to whoever asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bastide.domain.errors import (
    BastideError,
    Conflict,
    CreateFailed,
    MachineNotRunning,
    NotFound,
    NotSupported,
    StorageUnavailable,
    ValidationFailed,
    VmUnavailable,
)
from bastide.domain.image import FAILURES
from bastide.engine.contract import EngineError, EngineUnavailable, UnknownMachine, Unsupported
from bastide.store.tables import Operation


def failure_of(error: EngineError) -> BastideError:
    """The answer to a request that the engine refused."""
    if isinstance(error, UnknownMachine):
        return MachineNotRunning("The workspace has no machine now. Start it and try again.")
    if isinstance(error, Unsupported):
        return NotSupported(error.message)
    reason = {} if isinstance(error, EngineUnavailable) else {"reason": error.code}
    return VmUnavailable(f"The machine cannot be reached now: {error.message}.", details=reason)


@contextmanager
def engine_failures() -> Iterator[None]:
    """Turn the engine's errors within the block into answers."""
    try:
        yield
    except EngineError as error:
        raise failure_of(error) from error


def failure_of_operation(operation: Operation) -> BastideError:
    """The answer to a request whose operation failed."""
    problem = operation.error or {}
    code, message = problem.get("code", ""), problem.get("message", operation.message)
    details = {"workspace_id": operation.workspace_id, "operation": operation.kind.value}
    told: dict[str, BastideError] = {
        "superseded": Conflict(f"The operation was given up: {message}.", state="changing"),
        "no_snapshot": NotFound(f"There is nothing to restore: {message}.", details=details),
        "unsupported": NotSupported(f"The {operation.kind} is not possible: {message}."),
        "archive_gone": NotFound(f"There is no such archive: {message}.", details=details),
        "archive_paths": ValidationFailed("vm_paths", f"{message}.", details=details),
        "archive_dest": ValidationFailed("dest", f"{message}.", details=details),
        "archive_unfit": Conflict(f"The files cannot be put there: {message}.", details=details),
        "archive_too_large": Conflict(f"The archive is too large: {message}.", details=details),
        "archive_cancelled": Conflict(f"The archive was given up: {message}.", details=details),
        "workspace_full": Conflict(f"The files do not fit: {message}.", details=details),
        "storage": StorageUnavailable(f"{message}.", details=details),
        "conflict": Conflict(f"The {operation.kind} was refused: {message}.", state="conflict"),
    }
    if code in told:
        return told[code]
    if code in FAILURES:
        details["reason"] = code
    if code == CreateFailed.code or code in FAILURES:
        return CreateFailed(
            f"The workspace could not be created: {message}. Retry it with POST "
            f"/workspace/{operation.workspace_id}/provisioning/retry or delete it.",
            details=details,
        )
    return VmUnavailable(
        f"The {operation.kind} failed: {message}", details={**details, "reason": code}
    )
