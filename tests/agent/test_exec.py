"""Commands: modes, results, streams, resumption, limits, the whole tree killed."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.agent.conftest import DEADLINE, Agent

Event = tuple[str | None, str, dict[str, Any]]


def events(response: httpx.Response) -> Iterator[Event]:
    """(id, name, data) of each event of a stream; checks the strict spelling."""
    number: str | None = None
    name = "message"
    for line in response.iter_lines():
        if line.startswith(":"):
            continue
        if line.startswith("id: "):
            number = line[4:]
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield number, name, json.loads(line[6:])
            number, name = None, "message"
        else:
            assert line == ""


def text_of(found: list[Event], stream: str = "stdout") -> str:
    """The decoded output of one stream."""
    return b"".join(
        base64.b64decode(data["data"]) for _, name, data in found if name == stream
    ).decode()


@contextmanager
def running(http: httpx.Client, *cmd: str, **more: object) -> Iterator[tuple[str, Iterator[Event]]]:
    """Start a streamed command; its id and the events after the first."""
    body = {"cmd": list(cmd), "stream": True, **more}
    with http.stream("POST", "/exec", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        found = events(response)
        number, name, data = next(found)
        assert (number, name) == ("0", "task_id")
        yield data["task_id"], found


def until(check: Callable[[], bool]) -> None:
    """Wait for something to become true, within the deadline."""
    end = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < end


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_sync(http: httpx.Client, agent: Agent) -> None:
    """A command runs in the working directory with the workspace's environment."""
    answer = http.post(
        "/exec", json={"cmd": ["sh", "-c", 'echo "$GREETING $PWD"; echo e >&2; exit 3']}
    )
    assert answer.status_code == 200
    task = answer.json()
    assert "success" not in task
    assert task["stdout"] == f"hello {agent.home}\n"
    assert task["stderr"] == "e\n"
    assert task["exit_code"] == 3
    assert task["status"] == "exited"
    assert task["ttl_seconds"] == 300
    assert task["guest_pid"] > 1
    assert task["created_at"].endswith("Z")
    again = http.get(f"/exec/{task['id']}").json()
    assert "stdout" not in again
    assert again["exit_code"] == 3


@pytest.mark.parametrize(
    ("cmd", "mode", "out"),
    [
        (["echo a b"], None, "a b\n"),
        (["echo a | tr a c"], None, "c\n"),
        (["echo 'a  b'"], None, "a  b\n"),
        (["X=1 env | grep ^X"], "auto", "X=1\n"),
        (["sh", "-c", "cd / && pwd"], None, "/\n"),
        (["/bin/sh", "-lc", "echo x && printf y"], "foreground", "x\ny"),
        (["echo", "a;b", "$HOME"], None, "a;b $HOME\n"),
        (["echo", "a b", "|", "tr", "a", "c"], None, "c b\n"),
        (["echo", "$GREETING", "x y"], "shell", "$GREETING x y\n"),
        (["echo $GREETING"], "shell", "hello\n"),
        (["echo 'a b' $HOME"], "direct", "a b $HOME\n"),
        (["echo", "a|b"], "direct", "a|b\n"),
        (["echo", "--help-me", "-n"], "whatever", "--help-me -n\n"),
        (["printf", "%s.", "", "'", '"'], "shell", ".'.\"."),
    ],
)
def test_modes(http: httpx.Client, cmd: list[str], mode: str | None, out: str) -> None:
    """The argv rules: an inner shell survives, operators and metacharacters get one."""
    body: dict[str, object] = {"cmd": cmd}
    if mode:
        body["exec_mode"] = mode
    assert http.post("/exec", json=body).json()["stdout"] == out


def test_signal_and_odd_output(http: httpx.Client) -> None:
    """A signal is 128 + its number; bytes that are no text are replaced."""
    assert http.post("/exec", json={"cmd": ["sh", "-c", "kill -9 $$"]}).json()["exit_code"] == 137
    assert http.post("/exec", json={"cmd": ["printf", r"\377ok"]}).json()["stdout"] == "\ufffdok"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "cmd"),
        ({"cmd": []}, "cmd"),
        ({"cmd": [1]}, "cmd"),
        ({"cmd": ["a\0b"]}, "cmd"),
        ({"cmd": [" "]}, "cmd"),
        ({"cmd": ["\ud800"]}, "cmd"),
        ({"cmd": ["true"], "timeout_seconds": -1}, "timeout_seconds"),
        ({"cmd": ["true"], "timeout_seconds": "soon"}, "timeout_seconds"),
        ({"cmd": ["true"], "ttl_seconds": -2}, "ttl_seconds"),
        ({"cmd": ["true"], "keep_logs": "maybe"}, "keep_logs"),
        ({"cmd": ["true"], "exec_mode": 5}, "exec_mode"),
        ([], "body"),
    ],
)
def test_wrong_fields(http: httpx.Client, body: object, field: str) -> None:
    """Each wrong field is named."""
    answer = http.post("/exec", content=json.dumps(body))
    assert answer.status_code == 400
    assert answer.json()["code"] == "validation_error"
    assert answer.json()["details"]["field"] == field


@pytest.mark.parametrize("path", ["/exec", "/exec/stream"])
def test_cannot_start(http: httpx.Client, agent: Agent, path: str) -> None:
    """What cannot be started is a 400 in the spec's words, streamed or not."""
    script = agent.home / "noexec"
    script.write_text("no program")
    for cmd in (["no-such-program"], ["/etc"], [str(script)], [""] * 1 + ["x"]):
        answer = http.post(path, json={"cmd": cmd})
        assert answer.status_code == 400
        assert answer.json()["code"] in ("exec_failed", "validation_error")
    script.chmod(0o755)
    answer = http.post(path, json={"cmd": [str(script)]})
    assert "failed to start process" in answer.json()["message"]


def test_timeout_kills_the_whole_tree(http: httpx.Client, agent: Agent) -> None:
    """After the time-out not even a grandchild in its own session is left."""
    pids = agent.home / "pids"
    command = f"echo $$ > {pids}; setsid sleep 1000 & echo $! >> {pids}; (sleep 1001); wait"
    task = http.post("/exec", json={"cmd": [command], "timeout_seconds": 3}).json()
    assert task["status"] == "failed"
    assert task["exit_code"] == 124
    assert "timed out" in task["error"]
    for pid in map(int, pids.read_text().split()):
        until(lambda pid=pid: not alive(pid))  # type: ignore[misc]


def test_background_process_does_not_hold_the_answer(http: httpx.Client, agent: Agent) -> None:
    """A process left in the background outlives its task, and writing does not kill it."""
    file = agent.home / "late"
    command = (
        f"(while [ ! -e {file}.go ]; do sleep 0.02; done; echo x; echo x; echo > {file}) & echo ok"
    )
    task = http.post("/exec", json={"cmd": [command]}).json()
    assert task["stdout"] == "ok\n"
    (agent.home / "late.go").touch()
    until(file.exists)


def test_stream(http: httpx.Client) -> None:
    """task_id first, base64 output with ids, exit last."""
    with running(http, "sh", "-c", "echo out; echo err >&2; exit 4") as (_, found):
        rest = list(found)
    assert text_of(rest) == "out\n"
    assert text_of(rest, "stderr") == "err\n"
    assert rest[-1][1] == "exit"
    assert rest[-1][2]["exit_code"] == 4
    assert rest[-1][2]["pid"] > 1
    assert [int(number or "") for number, _, _ in rest] == list(range(1, len(rest) + 1))


def test_input(http: httpx.Client, agent: Agent) -> None:
    """Input reaches a streamed task; `eof` ends it."""
    with running(http, "cat") as (task, found), agent.client() as other:
        answer = other.post(f"/exec/{task}/input", content=b"one\n")
        assert answer.json() == {"success": True, "bytes_written": 4}
        assert base64.b64decode(next(found)[2]["data"]) == b"one\n"
        other.post(f"/exec/{task}/input?eof=true", content=b"two\n")
        rest = list(found)
        assert text_of(rest) == "two\n"
        assert rest[-1][2]["exit_code"] == 0
        assert other.post(f"/exec/{task}/input", content=b"x").status_code == 409
        assert other.post("/exec/nope/input", content=b"x").status_code == 404


def test_large_input_and_output(http: httpx.Client, agent: Agent) -> None:
    """Megabytes go through stdin and back without loss, though pipes hold 64 KiB."""
    data = os.urandom(1 << 20) * 4
    with running(http, "cat") as (task, found), agent.client() as other:
        import threading  # noqa: PLC0415

        sender = threading.Thread(
            target=lambda: other.post(f"/exec/{task}/input?eof=true", content=data)
        )
        sender.start()
        received = b"".join(
            base64.b64decode(event[2]["data"]) for event in found if event[1] == "stdout"
        )
        sender.join(DEADLINE)
    assert received == data


def test_large_sync_output_is_cut_and_says_so(http: httpx.Client) -> None:
    """Memory for output is bounded; the newest part is kept."""
    task = http.post("/exec", json={"cmd": ["seq 1 1000000"]}).json()
    assert task["truncated"] is True
    assert task["stdout"].endswith("999999\n1000000\n")
    assert len(task["stdout"]) <= 2 << 20


def test_subscribe_to_running(http: httpx.Client, agent: Agent) -> None:
    """A subscriber gets what was printed before, what comes, and the end."""
    with running(http, "sh", "-c", "echo first; read x; echo $x") as (task, found):
        assert base64.b64decode(next(found)[2]["data"]) == b"first\n"
        with agent.client() as other, other.stream("GET", f"/exec/stream?task_id={task}") as second:
            late = events(second)
            assert base64.b64decode(next(late)[2]["data"]) == b"first\n"
            with agent.client() as third:
                third.post(f"/exec/{task}/input", content=b"go\n")
            assert text_of(list(late)) == "go\n"
        assert text_of(list(found)) == "go\n"


def test_subscribe_to_finished(http: httpx.Client) -> None:
    """A finished task answers one output event, raw, and the exit; output only when kept."""
    for keep, output in ((True, {"stdout": "x\n", "stderr": ""}), (False, {})):
        task = http.post("/exec", json={"cmd": ["echo x"], "keep_logs": keep}).json()
        with http.stream("GET", "/exec/stream", params={"task_id": task["id"]}) as response:
            found = list(events(response))
        assert found[0][1:] == ("output", output)
        assert found[1][1] == "exit"
        assert ("stdout" in http.get(f"/exec/{task['id']}").json()) is keep
    assert http.get("/exec/stream?task_id=99999").status_code == 404
    assert http.get("/exec/stream").status_code == 400


def test_resume_without_loss_or_repetition(http: httpx.Client, agent: Agent) -> None:
    """A client that comes back with the last id it saw gets exactly the rest."""
    with running(http, "sh", "-c", "for i in 1 2 3; do echo $i; read x; done") as (task, found):
        first = next(found)
    assert base64.b64decode(first[2]["data"]) == b"1\n"
    for _ in range(3):
        http.post(f"/exec/{task}/input", content=b"\n")
    ways: tuple[dict[str, Any], ...] = (
        {"headers": {"Last-Event-ID": first[0]}},
        {"params": {"since": first[0]}},
    )
    for how in ways:
        params = {"task_id": task, **how.get("params", {})}
        with http.stream(
            "GET", "/exec/stream", params=params, headers=how.get("headers")
        ) as response:
            rest = list(events(response))
        assert text_of(rest) == "2\n3\n"
        assert rest[-1][1] == "exit"
    with http.stream("GET", "/exec/stream", params={"task_id": task, "since": 1 << 40}) as response:
        rest = list(events(response))
    assert rest[0][1] == "gap"
    assert text_of(rest) == "1\n2\n3\n"
    assert http.get(f"/exec/stream?task_id={task}&since=x").status_code == 400


def test_resume_tells_what_is_missing(http: httpx.Client) -> None:
    """When the backlog has moved on, a gap event says so, and the rest follows in order."""
    task = http.post("/exec", json={"cmd": ["seq 1 1000000"], "keep_logs": True}).json()
    with http.stream("GET", "/exec/stream", params={"task_id": task["id"], "since": 1}) as response:
        found = list(events(response))
    number, name, data = found[0]
    assert name == "gap"
    assert data["from"] == 2
    assert number == str(data["to"])
    assert int(found[1][0] or "") == data["to"] + 1
    assert text_of(found).endswith("\n1000000\n")


def test_slow_listener_holds_the_process_not_the_memory(http: httpx.Client, agent: Agent) -> None:
    """A client that does not read makes the process wait, and loses nothing."""
    with running(http, "seq 1 3000000") as (_, found):
        first = next(found)
        until(lambda: agent.memory_kib() < 60_000)
        rest = [first, *found]
    assert not [event for event in rest if event[1] == "gap"]
    text = text_of(rest)
    assert text.startswith("1\n2\n")
    assert text.endswith("\n3000000\n")
    assert text.count("\n") == 3_000_000


def test_lost_client_does_not_end_the_task(http: httpx.Client, agent: Agent) -> None:
    """The task goes on without its client."""
    file = agent.home / "survived"
    with running(http, "sh", "-c", f"echo up; read x; echo done > {file}") as (task, found):
        next(found)
    assert http.get(f"/exec/{task}").json()["status"] == "running"
    http.post(f"/exec/{task}/input", content=b"\n")
    until(file.exists)


def test_delete_kills_and_forgets(http: httpx.Client, agent: Agent) -> None:
    """DELETE ends the tree and the record; a listener is told."""
    pids = agent.home / "deleted"
    with running(http, f"sleep 1000 & echo $! > {pids}; echo $$ >> {pids}; echo up; wait") as (
        task,
        found,
    ):
        next(found)
        with agent.client() as other:
            assert other.delete(f"/exec/{task}").json() == {"success": True}
            assert other.get(f"/exec/{task}").status_code == 404
            assert other.delete(f"/exec/{task}").status_code == 404
        end = list(found)[-1]
    assert end[1] == "exit"
    assert end[2]["exit_code"] == 137
    assert end[2]["status"] == "failed"
    for pid in map(int, pids.read_text().split()):
        until(lambda pid=pid: not alive(pid))  # type: ignore[misc]


def test_ttl(http: httpx.Client) -> None:
    """A record vanishes after its time; -1 stays."""
    short = http.post("/exec", json={"cmd": ["true"], "ttl_seconds": 1}).json()["id"]
    kept = http.post("/exec", json={"cmd": ["true"], "ttl_seconds": -1}).json()
    assert kept["ttl_seconds"] == -1
    until(lambda: http.get(f"/exec/{short}").status_code == 404)
    assert http.get(f"/exec/{kept['id']}").status_code == 200


def test_fifty_at_once(own_agent: Agent) -> None:
    """Fifty run at once; one more is refused until one ends; delete-all ends them."""
    with own_agent.client() as http:
        streams = [
            http.stream("POST", "/exec", json={"cmd": ["sleep", "1000"], "stream": True})
            for _ in range(50)
        ]
        for stream in streams:
            stream.__enter__()
        refused = http.post("/exec", json={"cmd": ["true"]})
        assert refused.status_code == 429
        assert refused.json()["code"] == "too_many_tasks"
        listing = http.get("/exec").json()
        assert listing["success"] is True
        assert {task["status"] for task in listing["tasks"]} == {"running"}
        assert http.delete("/exec").json() == {"success": True, "deleted": 50}
        until(lambda: http.post("/exec", json={"cmd": ["true"]}).status_code == 200)
        for stream in streams:
            stream.__exit__(None, None, None)
        for task in listing["tasks"]:
            until(lambda pid=task["guest_pid"]: not alive(pid))  # type: ignore[misc]


def test_disable_and_stop_end_tasks(own_agent: Agent) -> None:
    """Disabling runtime access, like the end of the agent, ends every task."""
    stubborn = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    with (
        own_agent.client() as http,
        own_agent.control() as control,
        running(http, "sh", "-c", stubborn) as (task, found),
    ):
        next(found)
        pid = http.get(f"/exec/{task}").json()["guest_pid"]
        control.put("/control/runtime", json={"enabled": False})
        assert not alive(pid)


def test_process_surroundings(http: httpx.Client) -> None:
    """Own session, default signals, no stray descriptors, first in line for the OOM killer."""
    script = (
        "until grep -qx 600 /proc/self/oom_score_adj; do sleep 0.01; done;"
        "cat /proc/self/oom_score_adj; ls /proc/self/fd | wc -l;"
        "grep -E 'Sig(Ign|Blk)' /proc/self/status | cut -f2; ps -o sid= -p $$; echo $$"
    )
    task = http.post("/exec", json={"cmd": ["sh", "-c", script]}).json()
    score, fds, blocked, ignored, sid, pid = task["stdout"].split()
    assert score == "600"
    assert fds == "4"  # 0, 1, 2 and the directory being listed
    libc_internal = 0b11 << 31  # signals 32 and 33, which no program can reset
    assert int(blocked, 16) == 0
    assert int(ignored, 16) & ~libc_internal == 0
    assert sid == pid == str(task["guest_pid"])
