"""`bastide workspace` through a scripted server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.unit.client.server import Server, body_of, error, good, workspace
from typer.testing import CliRunner, Result

from bastide.cli import connection
from bastide.cli.app import app
from bastide.cli.fault import Fault
from bastide.client import Bastide

ENDS = [
    {"at": "2026-01-02T00:00:00Z", "cause": "exit", "code": 137, "oom": True, "restarted": True,
     "delay": 2.0},
    {"at": "2026-01-01T00:00:00Z", "cause": "lost", "code": None, "restarted": False},
]  # fmt: skip
LIFECYCLE = {
    "mode": "permanent", "status": "running", "restart_policy": "always", "max_restarts": 5,
    "restart_info": {"count": 1, "history": ENDS}, "snapshot_supported": False,
    "snapshot_unavailable_reason": "there is no CRIU", "pause_supported": True,
}  # fmt: skip
INFO = {
    "id": "ws_1", "status": "running", "state": "running", "tier": "container",
    "tier_reason": "the host has no KVM", "image": "debian-12", "ip": "10.201.0.7",
    "uptime": 60, "boot_timings_ms": {"disk": 12.4}, "snapshot_supported": True, "error": None,
    "resources": {"cpus": 0.5, "memory_mb": 512, "disk_size_mb": 1024},
    "last_exit": {"at": "2026-01-01T00:00:00Z", "code": 3, "signal": None, "requested": True},
    "snapshot": {"created_at": "2026-01-01T00:00:00Z", "memory_bytes": 2**21, "disk_bytes": 2**20},
}  # fmt: skip


def ws(*args: str) -> Result:
    """`bastide workspace ARGS`, which must succeed."""
    done = CliRunner().invoke(app, ["workspace", *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def asked(server: Server) -> Any:
    """The body of the last request that had one."""
    return next(body_of(request) for request in reversed(server.requests) if request.content)


def test_create_sends_every_option(server: Server) -> None:
    """Command, restarts and what becomes of it in the end are sent as the API takes them."""
    server.on("POST", "/workspace", workspace())
    ws("create", "--no-wait", "--cmd", "a | b", "--max-restarts", "0", "--restart", "always")
    assert asked(server)["config"] == {
        "cmd": "a | b", "max_restarts": 0, "restart_policy": "always",
    }  # fmt: skip
    ws("create", "--no-wait", "--cmd", '["a", "b c"]', "--ttl", "60", "--remove-on-exit")
    assert asked(server)["config"] == {"cmd": ["a", "b c"], "ttl": 60, "remove_on_exit": True}
    ws("create", "--no-wait", "--cmd", "[]")
    assert asked(server)["config"] == {"cmd": []}


def test_a_creation_is_watched_however_long_it_takes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image or an archive may take hours; whoever has enough of it presses ^C."""
    hours = itertools.count(step=3600.0)
    queued = workspace("queued", ready=False)
    server.on("POST", "/workspace", queued)
    server.on("GET", "/workspace/ws_1", queued, queued, workspace())

    def client() -> Bastide:
        made = server.client()
        monkeypatch.setattr(made.workspaces, "_clock", lambda: next(hours))
        return made

    monkeypatch.setattr(connection, "_local", client)
    assert ws("create").stdout == "ws_1\n"


@pytest.mark.parametrize("line", ["[ -f /x ] && y", '["a", 1]', "[ ] x"])
def test_what_is_no_list_of_words_is_for_the_shell(server: Server, line: str) -> None:
    """A command that only begins like a list goes to the shell as it is."""
    server.on("POST", "/workspace", workspace())
    ws("create", "--no-wait", "--cmd", line)
    assert asked(server)["config"]["cmd"] == line


def test_programs_get_json_and_nothing_else(server: Server) -> None:
    """With --json standard output is one document and standard error is empty."""
    server.on("POST", "/workspace", workspace("queued", ready=False))
    server.on("GET", "/workspace/ws_1", workspace("running", ready=False), workspace())
    done = ws("create", "--json")
    assert json.loads(done.stdout)["id"] == "ws_1"
    assert done.stderr == ""


def test_update_changes_what_is_given(server: Server) -> None:
    """What was left out is not sent; an empty slug, command or no variables take them away."""
    server.on("PUT", "/workspace/ws_1", workspace())
    ws("update", "ws_1", "--name", "new", "--restart", "no", "--max-restarts", "3")
    config: dict[str, Any] = {"restart_policy": "no", "max_restarts": 3}
    assert asked(server) == {"name": "new", "config": config}
    ws("update", "ws_1", "--slug", "", "--cmd", "", "--no-env")
    assert asked(server) == {"slug": None, "config": {"cmd": "", "env": {}}}
    done = ws("update", "ws_1", "-e", "A=b=c", "--driver", "auto", "--json")
    assert asked(server) == {"config": {"env": {"A": "b=c"}, "driver": "auto"}}
    assert json.loads(done.stdout)["id"] == "ws_1"


def test_an_action_alone_leaves_the_lease_as_long(server: Server) -> None:
    """No ttl is sent, so that the lease in force ends when it would have."""
    lease = good(mode="temporary", status="running", ttl="1h", ttl_action="pause")
    server.on("PUT", "/workspace/ws_1/lifecycle/ttl", lease)
    assert json.loads(ws("ttl", "ws_1", "--action", "pause", "--json").stdout)["ttl"] == "1h"
    assert server.paths() == ["PUT /workspace/ws_1/lifecycle/ttl"]
    assert asked(server) == {"ttl_action": "pause"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("ttl", "ws_1"), "no TTL"),
        (("ttl", "ws_1", "--action", "stop", "--remove-on-exit"), "no TTL"),
        (("ttl", "ws_1", "off", "--action", "stop"), "no end"),
        (("ttl", "ws_1", "1h", "--restart", "always"), "not restarted"),
        (("update", "ws_1"), "nothing to change"),
        (("update", "ws_1", "-e", "A=b", "--no-env"), "contradict"),
        (("update", "ws_1", "-e", "A"), "NAME=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_refused(server: Server, args: tuple[str, ...], said: str) -> None:
    """Wrong usage ends with code 2 and what to do, before the server is asked."""
    with pytest.raises(Fault, match=said) as fault:
        ws(*args)
    assert fault.value.code == 2
    assert fault.value.todo
    assert server.requests == []


def test_a_refusal_of_the_server_is_told(server: Server) -> None:
    """A wrong value is named as the server names it."""
    wrong = error(
        422, "validation_error", "Must be no, …", details={"field": "config.restart_policy"}
    )
    server.on("PUT", "/workspace/ws_1", wrong)
    with pytest.raises(Fault, match=r"config\.restart_policy"):
        ws("update", "ws_1", "--restart", "sometimes")


def test_start_can_be_forced(server: Server) -> None:
    """Only when asked; while it takes, that is told."""
    server.on("POST", "/workspace/ws_1/start", good())
    server.on("GET", "/workspace/ws_1", workspace())
    assert "starting" in ws("start", "ws_1").stderr
    assert server.requests[0].content == b""
    ws("start", "ws_1", "--force")
    assert asked(server) == {"force": True}


def test_list_by_mode(server: Server) -> None:
    """The server is asked for that mode alone."""
    server.on("GET", "/workspace", good(workspaces=[], total=0, page=1, limit=100))
    assert json.loads(ws("list", "--mode", "temporary", "--json").stdout) == []
    assert server.requests[0].url.params["mode"] == "temporary"


def test_lifecycle_tells_how_it_ended(server: Server) -> None:
    """Each end with what followed, the bound on restarts, and why there is no snapshot."""
    server.on("GET", "/workspace/ws_1/lifecycle", good(**LIFECYCLE))
    lines = ws("lifecycle", "ws_1").stdout.splitlines()
    assert "restarts        1 of at most 5" in lines
    assert "pause           possible" in lines
    assert "snapshot        not possible: there is no CRIU" in lines
    newest, oldest = (line.split() for line in lines[-2:])
    assert newest == ["2026-01-02T00:00:00", "exit", "137", "-", "yes", "after", "2", "s", "-"]
    assert oldest == ["2026-01-01T00:00:00", "lost", "-", "-", "no", "no", "-"]
    shown = json.loads(ws("lifecycle", "ws_1", "--json").stdout)
    assert shown["restart_info"]["history"] == ENDS


def test_info_tells_what_runs_it(server: Server) -> None:
    """Tier with its reason, last exit and snapshot; programs get it once, not twice."""
    server.on("GET", "/workspace/ws_1/info", good(info=INFO, **INFO))
    told = ws("info", "ws_1").stdout
    assert "container (the host has no KVM)" in told
    assert "2026-01-01T00:00:00Z: code 3, as asked" in told
    assert "memory 2 MiB, disk 1 MiB" in told
    assert "error" not in told
    shown = json.loads(ws("info", "ws_1", "--json").stdout)
    assert shown["last_exit"] == INFO["last_exit"]
    assert "info" not in shown


def test_info_tells_why_there_is_no_snapshot(server: Server) -> None:
    """None taken, and none possible, are told apart."""
    reason = {"snapshot_supported": False, "snapshot_unavailable_reason": "there is no CRIU"}
    without = INFO | {"snapshot": None, "last_exit": None}
    server.on("GET", "/workspace/ws_1/info", good(**without), good(**(without | reason)))
    assert "snapshot    none\n" in ws("info", "ws_1").stdout
    assert "none; not possible: there is no CRIU" in ws("info", "ws_1").stdout


FAULT = {"code": "image_not_found", "message": "there is no such image"}
FAILED = {"state": "failed", "phase": "failed", "error": FAULT}


@pytest.mark.parametrize(
    ("status", "more", "said"),
    [
        ("running", [], "no new boot was needed"),
        ("stopped", [], "it counts from the next start"),
        ("failed", [], "it counts from the next start"),
        ("running", ["--no-apply"], "it counts from the next start"),
    ],
)
def test_resizing_says_when_it_counts(
    server: Server, status: str, more: list[str], said: str
) -> None:
    """Now where it runs, else from the next start."""
    sizes = {"cpus": 1, "memory_mb": 512, "disk_size_mb": 1024, "status": status}
    answer = good(updated={"cpus": 1}, relaunched=False, resources=sizes)
    server.on("PATCH", "/workspace/ws_1/resources", answer)
    told = ws("resize", "ws_1", "--cpus", "1", *more).stderr
    assert said in told
    assert ("next start" in told) == ("next start" in said)


def test_quota_counts_in_whole_numbers(server: Server) -> None:
    """Two workspaces are 2, and half a core is 0.5."""
    pool = {"count": 2, "cpus": 0.5, "memory_mb": 2_000_000}
    server.on("GET", "/workspace/quota", good(pool_usage=pool))
    done = CliRunner().invoke(app, ["quota"], catch_exceptions=False)
    owned = next(line for line in done.stdout.splitlines() if line.startswith("owned"))
    assert owned.split() == ["owned", "2", "0.5", "2000000", "-"]


def test_details_are_json_either_way(server: Server) -> None:
    """The option that other commands have is no error here."""
    server.on("GET", "/workspace/ws_1/details", good(token="t"))
    for more in ([], ["--json"]):
        assert json.loads(ws("details", "ws_1", *more).stdout)["token"] == "t"


@pytest.mark.parametrize("verb", ["create", "retry"])
def test_a_creation_that_fails_shows_what_there_is(server: Server, verb: str) -> None:
    """With --json the workspace and its error; for people its id, and what to do with it."""
    server.on("POST", "/workspace", workspace("queued", ready=False))
    server.on("POST", "/workspace/ws_1/provisioning/retry", workspace("queued", ready=False))
    server.on(
        "GET",
        "/workspace/ws_1",
        good(workspace={"id": "ws_1", "name": "one", "provisioning": FAILED}),
    )
    args = ["workspace", verb, *(["ws_1"] if verb == "retry" else [])]
    for more in ([], ["--json"]):
        done = CliRunner().invoke(app, [*args, *more])
        assert isinstance(done.exception, Fault)
        assert done.exception.what == "ws_1: there is no such image (image_not_found)"
        assert "bastide workspace retry ws_1" in (done.exception.todo or "")
        if more:
            assert json.loads(done.stdout)["provisioning"]["error"] == FAULT
        else:
            assert done.stdout == ""


@pytest.mark.parametrize("args", [("resize", "ws_1"), ("create",)])
@pytest.mark.parametrize("cpus", ["nan", "inf", "-inf"])
def test_a_number_that_is_none_is_refused(server: Server, args: tuple[str, ...], cpus: str) -> None:
    """Wrong usage: a sentence, code 2, and nothing is sent."""
    with pytest.raises(Fault, match="must be a finite number") as fault:
        ws(*args, "--cpus", cpus)
    assert fault.value.code == 2
    assert server.requests == []


class CutOff(httpx.SyncByteStream):
    """An answer whose connection breaks after some of it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __iter__(self) -> Iterator[bytes]:
        yield self._text.encode()
        raise httpx.RemoteProtocolError("peer closed connection")


def test_a_command_that_is_cut_off(server: Server) -> None:
    """Nobody is told that the gateway was away: the workspace was stopped under the command."""
    server.on("POST", "/workspace/ws_1/runtime-api-access/enable", good(token="t"))
    started = 'event: task_id\ndata: {"task_id": "7"}\n\n'
    kind = {"Content-Type": "text/event-stream"}
    server.on("POST", "/exec/stream", httpx.Response(200, headers=kind, stream=CutOff(started)))
    with pytest.raises(Fault, match="cut off while the command ran") as fault:
        ws("exec", "ws_1", "--", "sleep", "9")
    assert "bastide workspace get ws_1" in (fault.value.todo or "")


@pytest.mark.parametrize(
    ("args", "path", "look"),
    [
        (("workspace", "create"), "GET /workspace/ws_1", "workspace get ws_1"),
        (("workspace", "retry", "ws_1"), "POST /workspace/ws_1/provisioning/retry", "get ws_1"),
        (("workspace", "start", "ws_1"), "POST /workspace/ws_1/start", "get ws_1"),
        (("workspace", "restart", "ws_1"), "POST /workspace/ws_1/restart", "get ws_1"),
        (("workspace", "resize", "ws_1", "--cpus", "1"), "PATCH /workspace/ws_1/resources",
         "workspace get ws_1"),
        (("workspace", "snapshot", "ws_1"), "POST /workspace/ws_1/snapshot", "info ws_1"),
        (("archive", "create", "ws_1"), "POST /workspace/ws_1/archives", "archive list ws_1"),
        (("archive", "restore", "ws_1", "1", "--yes"), "POST /workspace/ws_1/archives/1/restore",
         "workspace lifecycle ws_1"),
        (("archive", "download", "ws_1", "1"), "GET /workspace/ws_1/archives/1", "run it again"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("json", [False, True])
def test_who_stops_waiting_is_told_what_goes_on(
    server: Server, args: tuple[str, ...], path: str, look: str, *, json: bool
) -> None:
    """^C ends with 130, says what becomes of the work, and how to see its end."""
    method, _, where = path.partition(" ")
    server.on("POST", "/workspace", workspace("queued", ready=False))
    server.on(method, where, KeyboardInterrupt())
    more = ["--json"] if json and "download" not in args else []
    with pytest.raises(Fault) as fault:
        CliRunner().invoke(app, [*args, *more], catch_exceptions=False)
    assert fault.value.code == 130
    assert look in (fault.value.todo or "")


@pytest.mark.parametrize("verb", ["snapshot", "restore", "resize"])
def test_long_calls_tell_that_they_go_on(server: Server, verb: str) -> None:
    """First and last line on standard error for people; for programs nothing."""
    server.on("GET", "/workspace/ws_1", workspace())
    taken = good(snapshot={"created_at": "2026-01-01T00:00:00Z"})
    server.on("POST", f"/workspace/ws_1/{verb}", taken)
    server.on("PATCH", "/workspace/ws_1/resources", good(updated={"cpus": 1}))
    more = {"snapshot": [], "restore": ["--yes"], "resize": ["--cpus", "1"]}[verb]
    told = ws(verb, "ws_1", *more).stderr
    assert "0.0" in told
    assert "done" in told
    assert ws(verb, "ws_1", *more, "--json").stderr == ""
