"""Policies and private links in a whole cloud, from inside workspaces."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.processes import kill, until_whole
from tests.host.network import stage as world

from bastide.client import Bastide, ExecEvent, NotFoundError, Output, Workspace

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

KEEP = """
import http.client, sys, time
kept = http.client.HTTPConnection(sys.argv[1], 9990, timeout=30)
kept.connect()
kept.auto_open = False
try:
    while True:
        kept.request("GET", "/health")
        kept.getresponse().read()
        print("alive")
        time.sleep(0.05)
except (OSError, http.client.HTTPException):
    print("cut")
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
    with client.workspaces.runtime(caller.id).exec.stream(
        ["python3", "-u", "-c", KEEP, raw["ip"]]
    ) as events:
        heard = output(events)
        assert next(heard) == "alive"
        client.workspaces.network.update(target.id, private_link_ids=[])
        assert "".join(heard).endswith("cut")
    assert inside(client, caller.id, CALL, raw["ip"], raw["token"]).startswith("closed")


def output(events: Iterator[ExecEvent]) -> Iterator[str]:
    """What a command prints, as it comes."""
    for event in events:
        if isinstance(event, Output):
            yield from event.data.decode().split()


def test_links_go_with_their_callers_and_stay_in_the_account(
    cloud: Cloud, client: Bastide, make_workspace: Callable[..., Workspace]
) -> None:
    """A deleted caller leaves the list; a workspace of another account cannot be put in it."""
    target = make_workspace(memory_mb=128)
    caller = client.workspaces.create("debian-12", memory_mb=128)
    linked = cloud.json("network", "link", target.id, caller.id)
    assert [link["workspace_id"] for link in linked["private_links"]] == [caller.id]
    address = linked["private_links"][0]["ip"]
    assert address in linked["ingress"]
    client.workspaces.delete(caller.id)
    until(lambda: not client.workspaces.network.get(target.id).private_links)
    assert address not in client.workspaces.network.get(target.id).ingress
    account = cloud.json("account", "create", f"other {target.id}")["id"]
    key = cloud.json("key", "create", "--account", account)
    with Bastide(
        api_url=cloud.environment["BASTIDE_API_URL"],
        gateway_url=cloud.environment["BASTIDE_GATEWAY_URL"],
        client_id=key["client_id"],
        client_secret=key["client_secret"],
    ) as other:
        foreign = other.workspaces.create("debian-12", memory_mb=128, wait=False)
        try:
            for mine, yours, who in ((target, foreign, client), (foreign, target, other)):
                with pytest.raises(NotFoundError):
                    who.workspaces.network.update(mine.id, private_link_ids=[yours.id])
            with pytest.raises(NotFoundError):
                other.workspaces.network.get(target.id)
        finally:
            other.workspaces.delete(foreign.id)


REACH = """
import json, socket, sys
def reached(host, port):
    try:
        with socket.create_connection((host, port), timeout=5) as tcp:
            tcp.sendall(b"hello")
            return "open" if tcp.recv(100) == b"hello" else "ended"
    except socket.gaierror:
        return "unknown"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return type(error).__name__
print(json.dumps([reached(host, port) for host, port in json.loads(sys.argv[1])]))
"""
SERVE = """
import socket, threading
def serve(port):
    listener = socket.create_server(("0.0.0.0", port))
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(100))
threading.Thread(target=serve, args=(8081,)).start()
serve(8080)
"""


@pytest.fixture(scope="module")
def outside(cloud: Cloud) -> Iterator[world.Guest]:
    """The tests' internet, for a cloud that was made for it."""
    if world.POOLED not in map(str, cloud.settings.network.outbound_pool):
        pytest.skip("only a cloud of the tests' own knows their internet")
    with world.internet() as guest:
        yield guest


@pytest.fixture
def names(cloud: Cloud, outside: world.Guest) -> Iterator[None]:
    """The name server that this cloud asks."""
    server = world.NameServer(None, cloud.settings.network.nameservers[0])
    try:
        server.set("api.example.com", world.INTERNET, ttl=0)
        server.set("other.example.com", world.ELSEWHERE)
        server.set("www.example.org", "edge.cdn.example.", kind="CNAME")
        server.set("edge.cdn.example", world.ELSEWHERE)
        server.set("moved.example.org", world.METADATA)
        yield
    finally:
        server.close()


def reached(client: Bastide, workspace: str, *targets: tuple[str, int]) -> list[str]:
    """How connections from a workspace end, in order."""
    found: list[str] = json.loads(inside(client, workspace, REACH, json.dumps(targets)))
    return found


class Kept:
    """A target, its linked caller and a stranger, and what must hold whatever happens."""

    def __init__(self, client: Bastide, make: Callable[..., Workspace]) -> None:
        self.client = client
        self.caller = make(memory_mb=128).id
        self.stranger = make(memory_mb=128).id
        policy = {
            "ingress_ports": [8080],
            "private_link_ids": [self.caller],
            "egress": ["api.example.com", "*.example.org", "192.0.2.0/24"],
            "egress_ports": [80],
            "bandwidth_mbps": 50,
        }
        self.target = make(
            memory_mb=128, cmd=["python3", "-c", SERVE], config={"network_config": policy}
        ).id
        inside(client, self.target, "")  # the first call opens port 9990 as well
        self.ip = client.workspaces.network.get(self.target).ip or ""
        self.policy = self.stored()

    def stored(self) -> dict[str, Any]:
        """What is shown of the target's network."""
        found = self.client.workspaces.network.get(self.target)
        return found.model_dump(exclude={"request_id"})

    def check(self) -> None:
        """Names, addresses and ports from inside; who reaches it; what is shown."""
        until(lambda: reached(self.client, self.target, ("api.example.com", 80)) == ["open"])
        assert reached(
            self.client,
            self.target,
            (world.ELSEWHERE, 8000),
            ("other.example.com", 80),
            ("moved.example.org", 80),
            ("api.example.com", 80),
            ("api.example.com", 443),
            ("API.Example.COM.", 80),
            ("www.example.org", 80),
            (world.METADATA, 80),
            (world.OPENED, 80),
        ) == [
            "refused", "unknown", "unknown", "open", "refused", "open", "open", "refused", "refused"
        ]  # fmt: skip
        ip = self.ip
        until(lambda: reached(self.client, self.caller, (ip, 8080)) == ["open"])
        assert reached(self.client, self.caller, (ip, 8081), (ip, 9989)) == ["refused", "refused"]
        assert reached(self.client, self.stranger, (ip, 8080), (ip, 9990)) == ["refused", "refused"]
        assert self.stored() == self.policy


def booted_again(client: Bastide, workspace: str, before: str | None) -> bool:
    """Whether it is ready, and not as it was `before`."""
    again = client.workspaces.info(workspace).boot_id not in {None, before}
    return again and client.workspaces.get(workspace).ready


def test_a_policy_outlives_whatever_happens(
    cloud: Cloud,
    client: Bastide,
    make_workspace: Callable[..., Workspace],
    names: None,
) -> None:
    """Stop, restart, restore, kill -9 of node and resolver, a reboot: what is open stays so."""
    kept = Kept(client, make_workspace)
    workspaces, everyone = client.workspaces, (kept.target, kept.caller, kept.stranger)
    kept.check()
    refused = {entry.name for entry in workspaces.network.blocked(kept.target).blocked}
    assert "other.example.com" in refused
    workspaces.stop(kept.target)
    workspaces.start(kept.target)
    kept.check()
    workspaces.restart(kept.target)
    kept.check()
    if workspaces.info(kept.target).snapshot_supported:
        workspaces.snapshot(kept.target, after="stop")
        workspaces.restore(kept.target)
        kept.check()
    for victims in (("resolver",), ("node",), ("node", "resolver")):
        until_whole(cloud, kill(cloud, victims))
        kept.check()
    boots = {one: workspaces.info(one).boot_id for one in everyone}
    cloud.run("down")
    for one in everyone:
        record = cloud.settings.run_dir / "machines" / one / "boot.json"
        os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
    world.run("nft", "delete", "table", "inet", cloud.settings.network.table)
    cloud.run("up", "--detach")
    for one in everyone:
        until(partial(booted_again, client, one, boots[one]))
    kept.check()


def test_the_command_line(
    cloud: Cloud, client: Bastide, workspace: Workspace, outside: world.Guest
) -> None:
    """Every command of `bastide network`, with and without --json, as a person uses them."""
    name, network = workspace.id, client.workspaces.network
    shown = cloud.json("network", "set", name, "--egress", "203.0.113.0/24", "--ports", "80,443")
    assert (shown["egress"], shown["ingress_ports"]) == (["203.0.113.0/24"], [80, 443])
    assert reached(client, name, (world.INTERNET, 80), (world.ELSEWHERE, 80)) == ["open", "refused"]
    until(lambda: {one.destination for one in network.blocked(name).blocked} == {world.ELSEWHERE})
    (entry,) = cloud.json("network", "blocked", name)["blocked"]
    assert (entry["protocol"], entry["port"]) == ("tcp", 80)
    assert "REASON" in cloud.run("network", "blocked", name).stdout
    assert cloud.json("network", "addresses") == [world.POOLED]
    assert world.POOLED in cloud.run("network", "addresses").stdout
    assert cloud.json("network", "ip", name, world.POOLED)["outbound_ip"] == world.POOLED
    assert inside(client, name, SEEN, world.INTERNET) == world.POOLED
    assert "the server" in cloud.run("network", "ip", name, "none").stdout
    assert inside(client, name, SEEN, world.INTERNET) == world.HOST
    refused = cloud.run("network", "ip", name, world.ELSEWHERE, check=False)
    assert (refused.returncode, "outbound_pool" in refused.stderr) == (1, True)
    assert cloud.run("network", "set", name, check=False).returncode == 2
    assert "may reach" in cloud.run("network", "show", name).stdout
    assert cloud.json("network", "show", name)["outbound_ip"] is None
    assert cloud.json("network", "unlink", name, name)["private_links"] == []


SEEN = """
import socket, sys
with socket.create_connection((sys.argv[1], 7), timeout=30) as tcp:
    print(tcp.recv(100).decode())
"""


def until(reached: Callable[[], bool]) -> None:
    """Wait for something over HTTP, which has no event."""
    end = time.monotonic() + DEADLINE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)
