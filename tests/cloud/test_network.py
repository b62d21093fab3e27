"""Policies and private links in a whole cloud, from inside workspaces."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.cloud.cloud import Cloud

from bastide.client import Bastide, Workspace
from bastide.supervisor.record import Record, record_path

pytestmark = pytest.mark.cloud

DEADLINE = 60.0
CALL = """
import json, sys, urllib.request
request = urllib.request.Request(
    f"http://{sys.argv[1]}:9990/exec", json.dumps({"cmd": ["hostname"]}).encode(),
    {"Authorization": "Bearer " + sys.argv[2], "Content-Type": "application/json"},
)
try:
    with urllib.request.urlopen(request, timeout=5) as answer:
        print("open", answer.status)
except urllib.error.HTTPError as error:
    print("open", error.code)
except OSError as error:
    print("closed", error)
"""


def inside(client: Bastide, workspace: str, script: str, *args: str) -> str:
    """What a Python script prints in a workspace."""
    runtime = client.workspaces.runtime(workspace)
    return runtime.exec.run(["python3", "-c", script, *args]).stdout.strip()


def raw_token(cloud: Cloud, workspace: str) -> dict[str, Any]:
    """The raw token of a workspace's runtime, and where it is."""
    headers = {
        "X-Client-ID": cloud.environment["BASTIDE_CLIENT_ID"],
        "X-Client-Secret": cloud.environment["BASTIDE_CLIENT_SECRET"],
    }
    url = f"{cloud.environment['BASTIDE_API_URL']}/workspace/{workspace}/runtime-api-access"
    with httpx.Client(headers=headers, trust_env=False, timeout=30) as http:
        assert http.post(f"{url}/enable").json()["enabled"]
        found: dict[str, Any] = http.get(f"{url}/token/raw").json()
    return found


def test_direct_calls_between_workspaces(
    cloud: Cloud, client: Bastide, make_workspace: Callable[..., Workspace]
) -> None:
    """Enable, link, get the raw token, call: the four steps, one way, until it is unlinked."""
    target, caller = make_workspace(), make_workspace()
    raw = raw_token(cloud, target.id)
    assert raw["port"] == 9990
    client.workspaces.network.update(target.id, public_access=False)
    assert inside(client, caller.id, CALL, raw["ip"], raw["token"]).startswith("closed")
    client.workspaces.network.update(target.id, private_link_ids=[caller.id])
    shown = client.workspaces.network.get(target.id)
    assert [link.workspace_id for link in shown.private_links] == [caller.id]
    assert inside(client, caller.id, CALL, raw["ip"], raw["token"]) == "open 200"
    assert inside(client, caller.id, CALL, raw["ip"], "00" * 32) == "open 401"
    back = client.workspaces.network.get(caller.id).ip
    assert back is not None
    client.workspaces.network.update(target.id, public_access=True)
    assert inside(client, target.id, CALL, back, raw["token"]).startswith("closed")
    client.workspaces.stop(caller.id)
    client.workspaces.start(caller.id)
    client.workspaces.wait_ready(caller.id)
    assert inside(client, caller.id, CALL, raw["ip"], raw["token"]) == "open 200"
    client.workspaces.network.update(target.id, private_link_ids=[])
    assert inside(client, caller.id, CALL, raw["ip"], raw["token"]).startswith("closed")


RESOLVE = """
import socket
try:
    print(sorted({item[4][0] for item in socket.getaddrinfo("localhost.example.test", 80)}))
except OSError as error:
    print(type(error).__name__, error.errno)
with open("/etc/resolv.conf") as file:
    print(file.read().split())
try:
    socket.create_connection(("192.0.2.1", 443), timeout=5)
except OSError as error:
    print(type(error).__name__)
"""


def test_a_policy_outlives_stops_and_killed_processes(
    cloud: Cloud, client: Bastide, workspace: Workspace
) -> None:
    """Names are asked of the gateway, what is refused is shown, over restart and kill -9."""
    network = client.workspaces.network
    network.update(workspace.id, egress=["api.example.test", "198.51.100.0/24"])
    gateway = network.get(workspace.id).gateway

    def check() -> None:
        lines = inside(client, workspace.id, RESOLVE).splitlines()
        assert lines[0].startswith("gaierror")
        assert lines[1] == str(["nameserver", gateway])
        assert lines[2] == "ConnectionRefusedError"

    check()
    names = {entry.name for entry in network.blocked(workspace.id).blocked}
    assert "localhost.example.test" in names
    until(lambda: "192.0.2.1" in {e.destination for e in network.blocked(workspace.id).blocked})
    client.workspaces.restart(workspace.id)
    client.workspaces.wait_ready(workspace.id)
    check()
    for name in ("resolver", "node"):
        record = Record.read(record_path(cloud.settings.run_dir))
        assert record is not None
        entry = record.entry(name)
        assert entry is not None
        assert entry.process is not None
        assert entry.process.signal(signal.SIGKILL)
        until(lambda: answers(client, workspace.id))
        check()
    shown = json.loads(cloud.run("network", "show", workspace.id, "--json").stdout)
    assert shown["egress"] == ["api.example.test", "198.51.100.0/24"]
    cloud.run("network", "set", workspace.id, "--egress", "none", "--ports", "80,443")
    assert network.get(workspace.id).ingress_ports == [80, 443]
    assert "may reach" in cloud.run("network", "show", workspace.id).stdout
    assert "REASON" in cloud.run("network", "blocked", workspace.id).stdout


def answers(client: Bastide, workspace: str) -> bool:
    """Whether the engine answers again."""
    try:
        client.workspaces.network.blocked(workspace)
    except Exception:  # noqa: BLE001 - whatever is told while it is away
        return False
    return True


def until(reached: Callable[[], bool]) -> None:
    """Wait for something over HTTP, which has no event."""
    end = time.monotonic() + DEADLINE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)
