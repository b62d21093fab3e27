"""Tasks and terminals outlive everything between them and their clients."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from tests.agent.wire import Wire
from tests.cloud.cloud import Cloud
from tests.cloud.door import Door, gateway
from tests.cloud.processes import pids
from websockets.exceptions import ConnectionClosed

from bastide.client import Bastide, Workspace

pytestmark = pytest.mark.cloud
DEADLINE = 60.0
STOP = "/tmp/stop"
# A hundred lines a second: what comes within DEADLINE, and nobody takes, fits into the backlog.
SCRIPT = f"""i=0
while [ ! -e {STOP} ]; do echo line $i; i=$((i+1)); [ $((i%10)) != 0 ] || sleep 0.1; done
echo end >&2"""
COMMAND = ["sh", "-c", SCRIPT]


@pytest.fixture
def door(cloud: Cloud, workspace: Workspace) -> Door:
    """The way to one workspace through the gateway."""
    return gateway(cloud, workspace.id)


def well(door: Door) -> bool:
    """Whether the agent answers through the gateway."""
    with door.http() as http:
        return http.get("/health").status_code == 200


def until(ask: Callable[[], bool]) -> None:
    """Ask until the answer is true; a connection that fails counts as false."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            if ask():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, "not within the deadline"


@dataclass
class Follower:
    """Follows a task as an EventSource does: it remembers the last id and comes back with it."""

    door: Door
    task: str = ""
    last_id: str = ""
    output: dict[str, str] = field(default_factory=lambda: {"stdout": "", "stderr": ""})
    ids: list[int] = field(default_factory=list)
    exit: dict[str, Any] | None = None
    breaks: int = 0

    def start(self, command: list[str], reached: Callable[[], bool]) -> None:
        """Run a command and follow it."""
        with self.door.http() as http:
            self._follow(http, "POST", reached, json={"cmd": command})

    def come_back(self, reached: Callable[[], bool]) -> None:
        """Follow on behind the last event."""
        headers = {"Last-Event-ID": self.last_id}
        with self.door.http() as http:
            query = {"task_id": self.task}
            self._follow(http, "GET", reached, params=query, headers=headers)

    def _follow(
        self, http: httpx.Client, method: str, reached: Callable[[], bool], **values: Any
    ) -> None:
        try:
            with http.stream(method, "/exec/stream", **values) as answer:
                if answer.status_code == 503:  # the edge is not back yet
                    return
                assert answer.status_code == 200, answer.read()
                for name, number, data in frames(answer):
                    self._take(name, number, data)
                    if self.exit is not None or reached():
                        return
        except httpx.TransportError:
            self.breaks += 1

    def _take(self, name: str, number: str, data: dict[str, Any]) -> None:
        assert name != "gap", data
        self.last_id = number
        if name == "task_id":
            self.task = data["task_id"]
            return
        self.ids.append(int(number))
        if name == "exit":
            self.exit = data
        else:
            self.output[name] += base64.b64decode(data["data"]).decode()

    @property
    def seen(self) -> int:
        """How many lines have come."""
        return self.output["stdout"].count("\n")

    def more(self, lines: int, then: Callable[[], object] = lambda: True) -> Callable[[], bool]:
        """Do something once after so many more lines; its answer says whether to stop here."""
        at = self.seen + lines
        done = False

        def reached() -> bool:
            nonlocal done
            if done or self.seen < at:
                return False
            done = True
            return bool(then())

        return reached

    def finish(self) -> None:
        """Let the script end and follow it to there; all its lines must have come, in order."""
        with self.door.http() as http:
            assert http.post("/exec", json={"cmd": ["touch", STOP]}).json()["exit_code"] == 0
        self.come_back(lambda: False)
        assert self.exit is not None
        assert self.exit["exit_code"] == 0
        assert self.output["stderr"] == "end\n"
        assert self.output["stdout"] == "".join(f"line {n}\n" for n in range(self.seen))
        assert self.ids == list(range(1, len(self.ids) + 1))


def frames(answer: httpx.Response) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, id and data of each complete event."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "data" in fields:
            yield fields["event"], fields["id"], json.loads(fields["data"])
            fields = {}


def test_streams_are_resumed_after_the_gateway_died(cloud: Cloud, door: Door) -> None:
    """Kill -9 of the gateway in the middle of a stream, three times: nothing lost or repeated."""
    follower = Follower(door)

    def killing() -> Callable[[], bool]:
        edge = pids(cloud)["edge"]
        return follower.more(200, lambda: not edge.signal(signal.SIGKILL))

    follower.start(COMMAND, killing())
    for breaks in (1, 2):
        assert follower.breaks == breaks
        until(lambda: well(door))
        follower.come_back(killing())
    assert follower.breaks == 3
    until(lambda: well(door))
    follower.finish()


def test_streams_flow_while_the_control_plane_dies(cloud: Cloud, door: Door) -> None:
    """Api, node and supervisor are killed: a stream through the gateway does not even break."""
    follower = Follower(door)
    running = pids(cloud)
    victims = [running["api"], running["node"], running["supervisor"]]
    dying = [follower.more(200)]

    def reached() -> bool:
        if not dying[-1]():
            return False
        dying.append(follower.more(200))
        return not victims or not victims.pop(0).signal(signal.SIGKILL)

    follower.start(COMMAND, reached)
    assert not victims
    assert follower.breaks == 0
    follower.finish()
    until(lambda: cloud.run("status", check=False).returncode == 0)


def test_a_lost_client_does_not_end_its_task(door: Door) -> None:
    """A client that leaves finds its task again, and all of its output."""
    follower = Follower(door)
    follower.start(COMMAND, follower.more(100))
    follower.come_back(follower.more(400))
    follower.finish()


def test_terminals_outlive_the_gateway(cloud: Cloud, door: Door) -> None:
    """The gateway is killed: the shell, its job and its scrollback are still there."""
    with door.http() as http:
        made = http.post("/terminals", json={"cmd": ["/bin/sh"]}).json()
    number = int(made["id"])
    with Wire(door) as wire:
        wire.run(number, "cd /tmp; secret=kept; sleep 1000 & job=$!; echo before the end")
        assert pids(cloud)["edge"].signal(signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            wire.until(lambda: False)
    until(lambda: well(door))
    with Wire(door) as wire:
        wire.until_output(number, "before the end")
        told = wire.run(number, 'echo "$PWD $secret"; kill -0 $job && echo "the job runs"')
        assert "/tmp kept" in told
        assert "the job runs" in told


def test_tasks_and_terminals_are_frozen_and_go_on(
    client: Bastide, workspace: Workspace, door: Door
) -> None:
    """Paused and resumed: the task goes on where it was, and its stream loses nothing."""
    follower = Follower(door)
    follower.start(COMMAND, follower.more(200))
    client.workspaces.pause(workspace.id)
    with door.http() as http:
        told = http.get("/health")
    assert (told.status_code, told.json()["code"]) == (409, "vm_paused")
    client.workspaces.resume(workspace.id)
    follower.come_back(follower.more(200))
    follower.finish()
