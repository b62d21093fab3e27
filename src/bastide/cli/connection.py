"""A client of the cloud, and its errors in words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bastide.cli.configuration import first_credentials, server_settings
from bastide.cli.fault import Fault

if TYPE_CHECKING:
    from bastide.client import ApiError, Bastide, BastideError

TODO = {
    "not_found": "bastide workspace list shows what there is",
    "VM_UNAVAILABLE": "bastide workspace get ID tells its state, bastide status that of the server",
    "rate_limited": "wait a moment and try again",
    "conflict": "bastide workspace get ID tells its state",
}
KEY_TODO = 'check BASTIDE_CLIENT_ID and BASTIDE_CLIENT_SECRET; on the server: eval "$(bastide env)"'
RETRY_TODO = "bastide workspace retry {0} tries again, bastide workspace delete {0} removes it"
ENDED_TODO = {
    "WORKSPACE_STOPPED": "bastide workspace lifecycle {0} tells how it ended",
    "WORKSPACE_CREATION_CANCELLED": "bastide workspace list shows what there is",
}
ARCHIVE_TODO = "nothing was stored: put right what it says and try again; the version is free"
BROKEN_TODO = "bastide status tells what runs; what was asked for may have been done"
SERVER_TODO = "bastide status tells what runs; bastide up --detach starts it"


@contextlib.contextmanager
def cloud() -> Iterator[Bastide]:
    """The client of BASTIDE_* variables or, for root without them, of this server's first key."""
    from bastide.client import Bastide, BastideError

    try:
        with Bastide.from_env() if _named() else _local() as client:
            yield client
    except BastideError as error:
        raise _fault(error) from error


def _named() -> bool:
    names = ("BASTIDE_CLIENT_ID", "BASTIDE_TOKEN")
    return any(os.environ.get(name) for name in names)


def _local() -> Bastide:
    from bastide.client import Bastide

    credentials = first_credentials()
    settings = server_settings()
    return Bastide(
        api_url=settings.api_url,
        gateway_url=settings.gateway_url,
        client_id=credentials.client_id,
        client_secret=credentials.client_secret,
    )


def _fault(error: BastideError) -> Fault:
    from bastide import client

    match error:
        case client.InvalidValue():
            return Fault(str(error), code=2)
        case client.ApiError():
            return _refusal(error)
        case client.ProvisioningFailed():
            made = error.workspace.id if error.workspace else "ID"
            todo = ENDED_TODO.get(error.code, RETRY_TODO)
            return Fault(f"{made}: {error} ({error.code})", todo.format(made))
        case client.ArchiveFailed():
            return Fault(f"{error} ({error.code})", ARCHIVE_TODO)
    kinds = {
        client.ConnectionBroken: BROKEN_TODO,
        client.ConnectionFailed: SERVER_TODO,
        client.WaitTimeout: "bastide workspace get ID tells how far it is",
    }
    return Fault(str(error), kinds.get(type(error)))


def _refusal(error: ApiError) -> Fault:
    from bastide.client import AuthenticationError

    if isinstance(error, AuthenticationError):
        return Fault(f"{error} ({error.code})", KEY_TODO, request_id=error.request_id)
    field = str(error.details.get("field") or "")
    where = "" if field.casefold() in error.message.casefold() else f"{field}: "
    hint = error.details.get("hint")
    todo = hint if isinstance(hint, str) else TODO.get(error.code)
    # As a shell does it: 127 is a command that could not be run.
    code = 127 if error.code == "exec_failed" else 1
    return Fault(f"{where}{error} ({error.code})", todo, request_id=error.request_id, code=code)
