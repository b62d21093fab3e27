"""The `bastide` command without a cloud."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

BASTIDE = Path(sys.executable).with_name("bastide")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment that names an empty server."""
    return {
        "PATH": os.environ["PATH"],
        "BASTIDE_CONFIG": str(tmp_path / "bastide.toml"),
        "BASTIDE_STATE_DIR": str(tmp_path / "state"),
        "BASTIDE_RUN_DIR": str(tmp_path / "run"),
    }


def run(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BASTIDE), *args],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_loads_no_heavy_library() -> None:
    """`bastide --help` answers without the libraries that take long to import."""
    script = (
        "import sys; sys.argv = ['bastide', '--help']\n"
        "from bastide.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'httpx', 'pydantic', 'rich', 'sqlalchemy', 'fastapi', 'structlog'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"
    for command in ("up", "down", "status", "prepare", "doctor", "env", "image", "workspace"):
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("workspace", "get"),
        (
            "up",
            "--no-such",
        ),
    ],
)
def test_wrong_usage_ends_with_2(env: dict[str, str], args: tuple[str, ...]) -> None:
    """A command that does not exist or lacks a part ends with code 2 and says what is known."""
    done = run(env, *args)
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_named(env: dict[str, str], tmp_path: Path) -> None:
    """An unknown key of the settings is told with its name and file, in two lines."""
    (tmp_path / "bastide.toml").write_text("[network]\nsubnett = '10.0.0.0/16'\n")
    done = run(env, "status")
    assert done.returncode == 1
    assert "network.subnett" in done.stderr
    assert "bastide.toml" in done.stderr
    assert "what to do" in done.stderr


def test_status_of_a_stopped_server(env: dict[str, str]) -> None:
    """Everything is shown as stopped, and the exit code says so."""
    done = run(env, "status", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["running"] is False
    assert found["workspaces"] is None
    assert {item["state"] for item in found["processes"].values()} == {"stopped"}


def test_up_wants_a_prepared_host(env: dict[str, str]) -> None:
    """Without runtime, bundle and image nothing is started and the missing parts are named."""
    done = run(env, "up", "--detach")
    assert done.returncode == 1
    assert "bastide prepare" in done.stderr or "root" in done.stderr


def test_down_of_nothing_is_fine(env: dict[str, str]) -> None:
    """Stopping a server that does not run succeeds."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    done = run(env, "down")
    assert (done.returncode, done.stderr) == (0, "nothing was running\n")


def test_env_without_a_key_says_what_to_do(env: dict[str, str]) -> None:
    """Before the first start there is no key; the way to one is told."""
    done = run(env, "env")
    assert done.returncode == 1
    assert "bastide up" in done.stderr
    assert done.stdout == ""


def test_env_quotes_for_the_shell(env: dict[str, str], tmp_path: Path) -> None:
    """Values with quotes and blanks reach a shell unchanged."""
    secrets = tmp_path / "state" / "secrets"
    secrets.mkdir(parents=True)
    nasty = 'a\'b "c" $(touch /tmp/no) \\'
    (secrets / "credentials.json").write_text(
        json.dumps(
            {
                "client_id": "bastide_1",
                "client_secret": nasty,
                "account_id": "acc_1",
                "api_url": "-",
                "gateway_url": "-",
            }
        )
    )
    exports = run(env, "env").stdout
    shell = subprocess.run(
        ["sh", "-c", f'{exports}\nprintf %s "$OBLIEN_CLIENT_SECRET"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == nasty
    assert json.loads(run(env, "env", "--json").stdout)["BASTIDE_CLIENT_SECRET"] == nasty


def test_a_client_without_a_server_says_what_to_do(env: dict[str, str]) -> None:
    """A server that does not answer is one line, with the address."""
    env |= {
        "BASTIDE_API_URL": "http://127.0.0.1:1",
        "BASTIDE_GATEWAY_URL": "http://127.0.0.1:1",
        "BASTIDE_CLIENT_ID": "a",
        "BASTIDE_CLIENT_SECRET": "b",
    }
    done = run(env, "workspace", "list")
    assert done.returncode == 1
    assert "http://127.0.0.1:1" in done.stderr
    assert "bastide up" in done.stderr
    assert "Traceback" not in done.stderr


def test_purge_asks(env: dict[str, str], tmp_path: Path) -> None:
    """Without --yes and without anybody to ask, --purge deletes nothing."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    (tmp_path / "state").mkdir()
    done = run(env, "down", "--purge")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert (tmp_path / "state").exists()


def until_asleep(pid: int) -> None:
    """Wait until a process waits for something.

    Python acts on a signal that comes in the microsecond before it waits only after the waiting.
    """
    end = time.monotonic() + 60
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < end
        time.sleep(0.001)


def test_an_interrupt_says_that_the_server_goes_on(env: dict[str, str]) -> None:
    """^C in the middle of a call ends with 130 and two lines, not with a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        env |= {
            "BASTIDE_API_URL": url,
            "BASTIDE_GATEWAY_URL": url,
            "BASTIDE_CLIENT_ID": "a",
            "BASTIDE_CLIENT_SECRET": "b",
        }
        with subprocess.Popen(
            [str(BASTIDE), "workspace", "snapshot", "ws_1"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(65536).startswith(b"POST /workspace/ws_1/snapshot")
                until_asleep(running.pid)
                running.send_signal(signal.SIGINT)
                output, errors = running.communicate(timeout=60)
    assert (running.returncode, output) == (130, "")
    assert "the server goes on" in errors
    assert "bastide workspace info ws_1" in errors
    assert "Traceback" not in errors
