"""Errors of the client in the words of the command line."""

from __future__ import annotations

import pytest

from bastide import client
from bastide.cli.connection import _fault

MADE = client.Workspace(id="ws_1", name="one")


@pytest.mark.parametrize(
    ("error", "what", "todo"),
    [
        (
            client.AuthenticationError("no", status=401, code="unauthorized"),
            "no (unauthorized)",
            "bastide env",
        ),
        (
            client.ValidationError(
                "must be at most 32", status=422, code="validation_error", details={"field": "cpus"}
            ),
            "cpus: must be at most 32",
            None,
        ),
        (
            client.NotFoundError("no such workspace", status=404, code="not_found"),
            "no such workspace",
            "workspace list",
        ),
        (client.ConnectionFailed("http://x did not answer"), "did not answer", "bastide up"),
        (
            client.ConnectionBroken("the connection to http://x broke"),
            "broke",
            "bastide status",
        ),
        (
            client.ProvisioningFailed("CREATE_FAILED", "no space", workspace=MADE),
            "ws_1: no space",
            "bastide workspace retry ws_1",
        ),
        (
            client.ProvisioningFailed("WORKSPACE_STOPPED", "has stopped", workspace=MADE),
            "ws_1: has stopped",
            "bastide workspace lifecycle ws_1",
        ),
        (client.ArchiveFailed("archive_paths", "nothing at /x"), "nothing at /x", "try again"),
        (client.WaitTimeout("not ready"), "not ready", "workspace get"),
        (client.CommandFailed("it ended with 1"), "it ended with 1", None),
    ],
)
def test_each_error_says_what_and_what_to_do(
    error: client.BastideError, what: str, todo: str | None
) -> None:
    """One line on what happened and, where there is something to do, one on that."""
    fault = _fault(error)
    assert what in fault.what
    assert fault.code == 1
    if todo is None:
        assert fault.todo is None
    else:
        assert fault.todo is not None
        assert todo in fault.todo


@pytest.mark.parametrize("message", ["ttl must be 1h", "Ttl must be 1h"])
def test_a_field_is_named_once(message: str) -> None:
    """A sentence that begins with the field needs it no second time."""
    error = client.ValidationError(
        message, status=422, code="validation_error", details={"field": "ttl"}
    )
    assert _fault(error).what == f"{message} (validation_error)"


def test_the_request_id_is_told() -> None:
    """The id of the failed request is passed on for whoever looks into the logs."""
    error = client.ServerError("broken", status=500, code="server_error", request_id="req_1")
    assert "  request id: req_1" in _fault(error).lines()
