"""A client of the cloud, and its errors in words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bastide.cli.configuration import first_credentials, server_settings
from bastide.cli.fault import Fault

if TYPE_CHECKING:
    from bastide.client import Bastide, BastideError

TODO = {
    "not_found": "bastide workspace list shows what there is",
    "VM_UNAVAILABLE": "bastide workspace get ID tells its state, bastide status that of the server",
    "rate_limited": "wait a moment and try again",
    "conflict": "bastide workspace get ID tells its state",
}
KEY_TODO = 'check BASTIDE_CLIENT_ID and BASTIDE_CLIENT_SECRET; on the server: eval "$(bastide env)"'
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
        case client.AuthenticationError():
            return Fault(f"{error} ({error.code})", KEY_TODO, request_id=error.request_id)
        case client.ApiError():
            field = error.details.get("field")
            where = f"{field}: " if field and field not in error.message else ""
            hint = error.details.get("hint")
            todo = hint if isinstance(hint, str) else TODO.get(error.code)
            # As a shell does it: 127 is a command that could not be run.
            code = 127 if error.code == "exec_failed" else 1
            said = f"{where}{error} ({error.code})"
            return Fault(said, todo, request_id=error.request_id, code=code)
        case client.ProvisioningFailed() | client.ArchiveFailed():
            return Fault(f"{error} ({error.code})", "delete it, or see bastide status and the logs")
        case client.ConnectionFailed():
            return Fault(str(error), SERVER_TODO)
        case client.WaitTimeout():
            return Fault(str(error), "bastide workspace get ID tells how far it is")
        case _:
            return Fault(str(error))
