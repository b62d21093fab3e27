"""The command line as a person uses it, against a whole cloud."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cloud.cloud import BASTIDE, Cloud, clean_environment, share_prepared, variables
from tests.ports import free_address

from bastide.client import Workspace
from bastide.settings import Listen

pytestmark = pytest.mark.cloud


def test_a_session(cloud: Cloud) -> None:
    """Create, list, get, exec, stop, start, delete: each does and shows what it says."""
    created = cloud.run("workspace", "create", "a session", "--slug", "session", "-e", "A=b c")
    identifier = created.stdout.strip()
    assert re.fullmatch(r"ws_[0-9a-f]{8,}", identifier)
    assert "ready" in created.stderr, "the phases are told while it is made"
    try:
        listed = cloud.json("workspace", "list")
        assert identifier in [item["id"] for item in listed]
        row = next(
            line for line in cloud.run("ws", "list").stdout.splitlines() if identifier in line
        )
        assert "session" in row
        assert "ready" in row
        assert cloud.json("workspace", "get", "session")["id"] == identifier
        assert cloud.run("ws", "exec", "session", "--", "printenv", "A").stdout == "b c\n"
        cloud.run("ws", "exec", "session", "--", "sh", "-c", "echo kept > /root/kept")
        cloud.run("workspace", "stop", "session")
        assert cloud.json("workspace", "get", identifier)["info"]["is_running"] is False
        cloud.run("workspace", "start", "session")
        assert cloud.run("ws", "exec", "session", "--", "cat", "/root/kept").stdout == "kept\n"
        cloud.run("workspace", "restart", "session")
        assert cloud.run("ws", "exec", "session", "--", "true").returncode == 0
    finally:
        cloud.run("workspace", "delete", identifier, "--yes")
    end = time.monotonic() + 60
    while not (gone := cloud.run("workspace", "get", identifier, check=False)).returncode:
        assert time.monotonic() < end, "it is deleted in the background"
    assert gone.returncode == 1
    assert "not_found" in gone.stderr


def test_a_life(cloud: Cloud, workspace: Workspace) -> None:
    """Every call of a life, each with its outcome for programs, long ones with their progress."""
    own = workspace.id

    def ws(*args: str) -> Any:
        return cloud.json("workspace", *args)

    assert ws("pause", own)["status"] == "paused"
    assert ws("resume", own)["status"] == "running"
    lease = ws("ttl", own, "1h", "--action", "pause")
    assert (lease["ttl"], lease["ttl_action"]) == ("1h", "pause")
    changed = ws("ttl", own, "--action", "stop")
    assert (changed["ttl"], changed["ttl_action"]) == ("1h", "stop")
    assert changed["ttl_expires_at"] == lease["ttl_expires_at"]
    assert own in [each["id"] for each in ws("list", "--mode", "temporary")]
    assert ws("ping", own)["ttl_expires_at"]
    assert ws("ttl", own, "off", "--restart", "on-failure")["restart_policy"] == "on-failure"
    assert ws("resize", own, "--memory", "640")["resources"]["memory_mb"] == 640
    assert ws("lifecycle", own)["mode"] == "permanent"
    told = json.loads(cloud.run("workspace", "details", own).stdout)
    assert told["lifecycle"]["status"] == told["workspace"]["status"] == "running"
    line = "echo $GREETING > /root/said; exec sleep infinity"
    changed = ws("update", own, "--name", "a life", "--cmd", line, "-e", "GREETING=hello",
                 "--max-restarts", "5")  # fmt: skip
    assert (changed["name"], changed["config"]["max_restarts"]) == ("a life", 5)
    assert ws("snapshot", own)["size_bytes"] > 0
    assert ws("stop", own)["status"] == "stopped"
    info = ws("info", own)
    assert (info["state"], info["last_exit"]["requested"]) == ("stopped", True)
    assert info["snapshot"]["size_bytes"] > 0
    assert ws("restore", own, "--yes")["size_bytes"] > 0
    assert ws("restart", own)["ready"]
    assert ws("reinstall", own, "--yes")["ready"]
    assert ws("destroy", own, "--yes")["status"] == "stopped"
    assert own in [each["id"] for each in ws("archived")]
    assert ws("start", own, "--force")["ready"]
    until_said(cloud, own, "hello\n")
    refused = cloud.run("workspace", "retry", own, check=False)
    assert refused.returncode == 1
    assert "only a failed creation" in refused.stderr
    assert cloud.json("quota")["current_workspaces"] >= 1
    assert cloud.json("estimate", "--cpus", "2")["max"] > 0


def until_said(cloud: Cloud, workspace: str, text: str) -> None:
    """Wait until the main command, which begins when the workspace is ready, has said it."""
    deadline = time.monotonic() + 60
    while True:
        done = cloud.run("ws", "exec", workspace, "--", "cat", "/root/said", check=False)
        if done.stdout == text:
            return
        assert time.monotonic() < deadline, (done.stdout, done.stderr)
        time.sleep(0.1)


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exec_ends_with_the_commands_own_code(
    cloud: Cloud, workspace: Workspace, code: int
) -> None:
    """The exit code of the command inside is the exit code here."""
    done = cloud.run("ws", "exec", workspace.id, "--", "sh", "-c", f"exit {code}", check=False)
    assert done.returncode == code


def test_exec_of_no_program_ends_with_127(cloud: Cloud, workspace: Workspace) -> None:
    """A command that does not exist ends as it does in a shell, and is named."""
    done = cloud.run("ws", "exec", workspace.id, "--", "no-such-program", check=False)
    assert done.returncode == 127
    assert "no-such-program" in done.stderr


def test_exec_keeps_the_streams_apart(cloud: Cloud, workspace: Workspace) -> None:
    """Standard output and error arrive on their own streams, byte for byte."""
    script = "printf 'out\\000\\n'; printf err >&2"
    done = cloud.run("ws", "exec", workspace.id, "--", "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("out\0\n", "err")


def test_exec_passes_options_and_words_unchanged(cloud: Cloud, workspace: Workspace) -> None:
    """What comes after `--` reaches the command as it is, options and blanks included."""
    words = ["--help", "-x", "a b", "$HOME", "*", "--"]
    done = cloud.run("ws", "exec", workspace.id, "--", "printf", "%s\\n", *words)
    assert done.stdout.splitlines() == words


def test_exec_passes_standard_input(cloud: Cloud, workspace: Workspace) -> None:
    """Piped input reaches the command whole and ends, also when it is larger than a pipe."""
    data = "line of input\n" * 20_000
    done = cloud.run("ws", "exec", workspace.id, "--", "cat", text=data)
    assert done.stdout == data


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_exec_of_a_workspace_that_restarts(cloud: Cloud, workspace: Workspace, trap: str) -> None:
    """A command that the restart ends is told as it ended; the gateway is not said to be away."""
    line = f"{trap}echo begun; while :; do sleep 1; done"
    with subprocess.Popen(
        [str(BASTIDE), "workspace", "exec", workspace.id, "--", "sh", "-c", line],
        env=clean_environment() | cloud.server | cloud.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        cloud.run("workspace", "restart", workspace.id)
        _, told = running.communicate(timeout=60)
    assert running.returncode in {1, 128 + signal.SIGTERM, 128 + signal.SIGKILL}
    assert ("cut off while the command ran" in told) == (running.returncode == 1)
    assert "did not answer" not in told


def test_env_feeds_a_shell(cloud: Cloud) -> None:
    """`eval "$(bastide env)"` sets every variable to what `--json` says."""
    lines = cloud.run("env").stdout
    names = sorted(cloud.environment)
    script = f"{lines}\nprintf '%s\\n' " + " ".join(f'"${name}"' for name in names)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [cloud.environment[name] for name in names]
    assert all(shlex.split(line)[0] == "export" for line in lines.splitlines())
    assert names == [
        "BASTIDE_API_URL", "BASTIDE_CLIENT_ID", "BASTIDE_CLIENT_SECRET", "BASTIDE_GATEWAY_URL",
        "OBLIEN_BASE_URL", "OBLIEN_CLIENT_ID", "OBLIEN_CLIENT_SECRET", "OBLIEN_GATEWAY_URL",
    ]  # fmt: skip


def test_status_tells_every_process(cloud: Cloud) -> None:
    """Supervisor, guard and the three services run, each with its pid and start time."""
    found = cloud.json("status")
    assert found["running"] is True
    services = ["node", "resolver", "api", "edge", "bastion"]
    assert list(found["processes"]) == ["supervisor", "guard", *services]
    for item in found["processes"].values():
        assert item["state"] == "running"
        assert item["pid"] > 1
        assert item["start_time"] > 0
    assert "edge" in cloud.run("status").stdout


def test_up_again_changes_nothing(cloud: Cloud) -> None:
    """A second `bastide up --detach` says that it runs and leaves the processes as they are."""
    before = cloud.json("status")["processes"]
    again = cloud.run("up", "--detach")
    assert "already running" in again.stderr
    after = cloud.json("status")["processes"]
    assert {name: item["pid"] for name, item in before.items()} == {
        name: item["pid"] for name, item in after.items()
    }


@pytest.mark.parametrize("name", ["api", "gateway", "ssh"])
def test_up_where_another_cloud_listens(cloud: Cloud, tmp_path: Path, name: str) -> None:
    """A cloud does not start on a port of another, whose answers would pass for its own."""
    taken = getattr(cloud.settings.listen, name)
    addresses = {each: free_address() for each in ("api", "gateway", "ssh")} | {name: taken}
    settings = cloud.settings.model_copy(
        update={
            "state_dir": tmp_path / "state",
            "run_dir": tmp_path / "run",
            "listen": Listen(**addresses),
        }
    )
    settings.state_dir.mkdir()
    share_prepared(cloud.settings.state_dir, settings.state_dir)
    other = Cloud(settings, cloud.server | variables(settings), {})
    refused = other.run("up", "--detach", check=False)
    assert refused.returncode == 1
    assert f"listen.{name}: {taken} cannot be used" in refused.stderr
    assert not settings.run_dir.exists()
    assert cloud.json("status")["running"] is True


def test_keys_are_made_used_and_revoked(cloud: Cloud) -> None:
    """A new key works, is listed without its secret, and is refused once revoked."""
    made = cloud.json("key", "create", "--label", "tests")
    used = {
        "BASTIDE_CLIENT_ID": made["client_id"],
        "BASTIDE_CLIENT_SECRET": made["client_secret"],
    }
    other = Cloud(cloud.settings, cloud.server, cloud.environment | used)
    other.run("workspace", "list")
    listed = cloud.run("key", "list", "--json").stdout
    assert made["client_id"] in listed
    assert made["client_secret"] not in listed
    cloud.run("key", "revoke", made["client_id"])
    refused = other.run("workspace", "list", check=False)
    assert refused.returncode == 1
    assert "what to do" in refused.stderr
    assert "request id" in refused.stderr
    assert json.loads(listed)[0]["scope"] == "admin"


def test_a_namespace_key_is_bound_to_its_namespace(cloud: Cloud) -> None:
    """Wrong scopes and missing parts of a key are refused with what is allowed."""
    wrong = cloud.run("key", "create", "--scope", "all", check=False)
    assert wrong.returncode == 2
    assert "namespace" in wrong.stderr
    lacking = cloud.run("key", "create", "--scope", "namespace", check=False)
    assert lacking.returncode == 1
    assert "namespace" in lacking.stderr


def test_accounts_are_apart(cloud: Cloud) -> None:
    """A key of another account sees none of the first one's workspaces."""
    account = cloud.json("account", "create", "second")
    assert account["id"] in cloud.run("account", "list").stdout
    key = cloud.json("key", "create", "--account", account["id"])
    used = {"BASTIDE_CLIENT_ID": key["client_id"], "BASTIDE_CLIENT_SECRET": key["client_secret"]}
    other = Cloud(cloud.settings, cloud.server, cloud.environment | used)
    assert other.json("workspace", "list") == []


def test_delete_asks(cloud: Cloud, workspace: Workspace) -> None:
    """Without --yes and without anybody to ask, nothing is deleted and the code is 2."""
    refused = cloud.run("workspace", "delete", workspace.id, check=False)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert cloud.json("workspace", "get", workspace.id)["ready"] is True


def test_faults_are_told_in_two_lines(cloud: Cloud) -> None:
    """A refused field names itself and the codes of usage and failure differ."""
    wrong = cloud.run("ws", "create", "--cpus", "1000", check=False)
    assert wrong.returncode == 1
    assert "cpus" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert cloud.run("ws", "create", "--cpus", "many", check=False).returncode == 2
    assert cloud.run("ws", "create", "-e", "novalue", check=False).returncode == 2
    none = cloud.run("ws", "create", "--cpus", "nan", check=False)
    assert (none.returncode, "Traceback" in none.stderr) == (2, False)
    slip = cloud.run("image", "pull", "bogus", check=False)
    assert slip.returncode == 1
    assert "There is no image 'bogus' here. The images are:" in slip.stderr


def test_doctor_finds_this_host_in_order(cloud: Cloud) -> None:
    """Every requirement is met on the machine the tests run on, and the ports are ours."""
    found = cloud.json("doctor")
    assert found["ok"] is True, [item for item in found["checks"] if item["level"] == "fail"]
    ports = {item["name"]: item["says"] for item in found["checks"] if "listen." in item["name"]}
    assert list(ports) == ["listen.api", "listen.gateway", "listen.ssh"]
    assert all("served by this server" in says for says in ports.values())
