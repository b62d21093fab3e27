"""What the tests of the command line share."""

from __future__ import annotations

import pytest
from tests.unit.client.server import Server

from bastide.cli import connection


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """What the command line asks."""
    server = Server()
    monkeypatch.setattr(connection, "_named", lambda: False)
    monkeypatch.setattr(connection, "_local", server.client)
    return server
