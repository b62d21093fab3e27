"""What the supervisor gets is what HAProxy takes."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from tests.ports import free_address

from bastide.edge.edge import live_map, map_directory
from bastide.edge.haproxy import prepare
from bastide.edge.maps import GatewayEntry, write_map
from bastide.settings import Listen, Settings

pytestmark = pytest.mark.host


def test_prepared_configuration(tmp_path: Path) -> None:
    """HAProxy finds no fault in the default configuration; broken map lines do not stop it."""
    settings = Settings(
        state_dir=tmp_path / "state", run_dir=tmp_path / "run", user="daemon", edge_user="nobody"
    )
    map_directory(settings).mkdir(parents=True)
    entry = GatewayEntry("ws_00000001", "10.201.0.2", 1, "open", "1" * 64)
    write_map(map_directory(settings), ["broken\n", entry.line(), "ws_00000002 open:1:8.8.8.8:x\n"])
    launch = prepare(settings)
    assert live_map(settings).read_text() == entry.line()
    check = subprocess.run(
        [*launch.argv, "-c"],
        env={**os.environ, **launch.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert check.returncode == 0, check.stderr
    assert "WARNING" not in check.stderr
    assert launch.environment["BASTIDE_GATEWAY_KEY"] not in check.stdout + check.stderr


@pytest.mark.parametrize("name", ["api", "gateway"])
def test_no_port_is_shared(tmp_path: Path, name: str) -> None:
    """A port that another has, though it would share, keeps HAProxy from starting at all."""
    addresses = {"api": free_address(), "gateway": free_address()}
    settings = Settings(
        state_dir=tmp_path / "state",
        run_dir=tmp_path / "run",
        user="daemon",
        edge_user="nobody",
        listen=Listen(**addresses),
    )
    settings.api_socket.parent.mkdir(parents=True)
    launch = prepare(settings)
    host, port = addresses[name].split(":")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((host, int(port)))
        other.listen()
        done = subprocess.run(
            launch.argv,
            env={**os.environ, **launch.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert addresses[name] in done.stderr
    assert "Address already in use" in done.stderr
