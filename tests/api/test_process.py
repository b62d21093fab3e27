"""`python -m bastide.api` as a real process: rights, socket, log, end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bastide.services.first_credentials import FirstCredentials
from bastide.settings import Settings

DEADLINE = 60.0
USER = "nobody"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A server's directories, in a place that unprivileged users may enter."""
    root = Path(tempfile.mkdtemp(prefix="bastide-api-"))
    root.chmod(0o755)
    monkeypatch.setenv("BASTIDE_CONFIG", str(root / "none.toml"))
    monkeypatch.setenv("BASTIDE_STATE_DIR", str(root / "state"))
    monkeypatch.setenv("BASTIDE_RUN_DIR", str(root / "run"))
    monkeypatch.setenv("BASTIDE_USER", USER)
    monkeypatch.setenv("BASTIDE_EDGE_USER", USER)
    yield Settings()
    shutil.rmtree(root)


@pytest.fixture
def api(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """The process, answering."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bastide.api"], stderr=subprocess.PIPE, text=True, cwd="/"
    )
    try:
        deadline = time.monotonic() + DEADLINE
        while process.poll() is None and not healthy(settings):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()[1]
        yield process
    finally:
        process.kill()
        process.communicate()


def healthy(settings: Settings) -> bool:
    """Whether it answers on its socket."""
    try:
        with socket.socket(socket.AF_UNIX) as knock:
            knock.connect(str(settings.api_socket))
    except OSError:
        return False
    with client(settings) as http:
        return http.get("/healthz").status_code == 200


def client(settings: Settings, **headers: str) -> httpx.Client:
    """A client of the socket."""
    transport = httpx.HTTPTransport(uds=str(settings.api_socket))
    return httpx.Client(
        transport=transport, base_url="http://api", headers=headers, timeout=DEADLINE
    )


def test_it_serves_with_the_first_key_and_ends_in_order(
    settings: Settings, api: subprocess.Popen[str]
) -> None:
    """It answers authenticated requests, and SIGTERM ends it with code 0 and no traceback."""
    first = FirstCredentials.read(settings.credentials_file)
    assert first is not None
    headers = {"X-Client-ID": first.client_id, "X-Client-Secret": first.client_secret}
    with client(settings, **headers) as http:
        assert http.get("/keys").status_code == 200
    api.send_signal(signal.SIGTERM)
    _, written = api.communicate(timeout=DEADLINE)
    assert api.returncode == 0
    lines = [json.loads(line) for line in written.splitlines()]
    assert {"GET"} == {line["method"] for line in lines if line["event"] == "request"}
    assert not [line for line in lines if line["level"] == "critical" or "exception" in line]
    assert first.client_secret not in written


def test_rights_of_files_and_process(settings: Settings, api: subprocess.Popen[str]) -> None:
    """It has given up root, its secrets are its own, and only the edge's group meets the socket."""

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(settings.api_socket) == 0o666
    assert mode(settings.credentials_file) == 0o600
    assert mode(settings.credentials_file.parent) == 0o700
    assert mode(settings.state_dir / "db") == 0o700
    if os.geteuid() == 0:
        assert mode(settings.api_socket.parent) == 0o2750
        assert settings.state_dir.stat().st_uid == 0
        assert settings.credentials_file.owner() == USER
        status = Path(f"/proc/{api.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == {str(settings.credentials_file.stat().st_uid)}
        assert fields["Groups"].split() == [fields["Gid"].split()[0]]
        assert int(fields["CapEff"], 16) == 0


def test_killed_and_started_again_it_goes_on(
    settings: Settings, api: subprocess.Popen[str]
) -> None:
    """A socket left by a killed process is no obstacle, and the credentials stay."""
    before = settings.credentials_file.read_bytes()
    api.kill()
    api.wait(timeout=DEADLINE)
    again = subprocess.Popen([sys.executable, "-m", "bastide.api"], cwd="/")
    try:
        deadline = time.monotonic() + DEADLINE
        while not healthy(settings):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert settings.credentials_file.read_bytes() == before
    finally:
        again.terminate()
        assert again.wait(timeout=DEADLINE) == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("BASTIDE_USER", "no-such-user", "adduser"), ("BASTIDE_NETWORK__SUBNET", "x", "subnet")],
)
def test_wrong_settings_are_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """It ends with code 1 and one message that says what to change."""
    del settings
    if name == "BASTIDE_USER" and os.geteuid() != 0:
        pytest.skip("users are changed by root only")
    monkeypatch.setenv(name, value)
    ended = subprocess.run(
        [sys.executable, "-m", "bastide.api"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        cwd="/",
    )
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
