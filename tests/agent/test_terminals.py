"""Terminals as a client sees them (spec runtime 7)."""

from __future__ import annotations

import base64
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.agent.conftest import Agent, start_agent
from tests.agent.wire import Wire, new_terminal, wait_until


@pytest.fixture(autouse=True)
def no_terminals(http: httpx.Client) -> Iterator[None]:
    """Every test leaves the shared agent without terminals."""
    yield
    for terminal in http.get("/terminals").json()["terminals"]:
        http.delete(f"/terminals/{terminal['id']}")


def scrollback(http: httpx.Client, number: int, **query: int) -> bytes:
    """What a terminal printed, by REST."""
    answer = http.get(f"/terminals/{number}/scrollback", params=query).json()
    data = base64.b64decode(answer["scrollback"])
    assert answer["size"] == len(data)
    return data


def wait_for_end(http: httpx.Client, number: int) -> dict[str, Any]:
    """Wait until the program of a terminal has ended; the terminal."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(http.get(f"/terminals/{number}").json())
        return not found["alive"]

    wait_until(ended)
    return found


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_shape_of_a_terminal(http: httpx.Client) -> None:
    """An empty body gives the image's shell at 80x24; all answers have the published fields."""
    answer = http.post("/terminals", content=b"", headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    body = answer.json()
    assert body["success"] is True
    assert (body["id"], body["cols"], body["rows"]) == ("1", 80, 24)
    assert body["command"][0].startswith("/")
    assert (body["alive"], body["exit_code"], body["scrollback_size"]) == (True, 0, 65536)
    assert body["created_at"].endswith("Z")
    listed = http.get("/terminals").json()
    assert listed["success"] is True
    assert [item["id"] for item in listed["terminals"]] == ["1"]
    assert http.delete("/terminals/1").json() == {"success": True, "terminal_id": "1"}
    assert http.get("/terminals").json()["terminals"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"cmd": "sh"}, {"cmd": [1]}, {"cmd": ["a\0b"]}, {"cols": 0}, {"cols": 1001},
        {"rows": -1}, {"rows": "x"}, {"cols": True}, {"scrollback_size": 262145},
        {"scrollback_size": -1}, {"cmd": ["/nowhere"]}, {"cmd": [""]}, {"cmd": ["/etc/passwd"]},
        {"cmd": ["/tmp"]},
    ],
)  # fmt: skip
def test_wrong_input_is_a_400_and_makes_nothing(
    http: httpx.Client, body: dict[str, object]
) -> None:
    """Whatever is wrong is told with a 400, and no terminal is left behind."""
    answer = http.post("/terminals", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["success"] is False
    assert http.get("/terminals").json()["terminals"] == []


def test_ids_are_reused_and_ten_is_the_limit(http: httpx.Client) -> None:
    """Ids fill the gaps from 1; the eleventh is a 429; an ended one gives way to a new one."""
    numbers = [new_terminal(http, "cat") for _ in range(10)]
    assert numbers == list(range(1, 11))
    answer = http.post("/terminals", json={"cmd": ["cat"]})
    assert answer.status_code == 429
    assert answer.json()["code"] == "terminal_limit"
    http.delete("/terminals/4")
    assert new_terminal(http, "true") == 4
    wait_for_end(http, 4)
    assert new_terminal(http, "cat") == 4
    assert http.get("/terminals/4").json()["alive"] is True


@pytest.mark.parametrize("name", ["0", "01", "11", "256", "-1", "x", "1x", "%31%00", "9" * 50])
def test_unknown_ids_are_404(http: httpx.Client, name: str) -> None:
    """An id that is none is a 404 on every path."""
    new_terminal(http, "cat")
    assert http.get(f"/terminals/{name}").status_code == 404
    assert http.delete(f"/terminals/{name}").status_code == 404
    assert http.get(f"/terminals/{name}/scrollback").status_code == 404
    assert http.patch(f"/terminals/{name}/scrollback", json={}).status_code == 404
    assert http.delete(f"/terminals/{name}/scrollback").status_code == 404


def test_wrong_methods_are_405(http: httpx.Client) -> None:
    """The published paths answer a wrong method with 405."""
    assert http.put("/terminals").status_code == 405
    assert http.post("/terminals/1/scrollback").status_code == 405


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_exit_codes(http: httpx.Client, script: str, code: int) -> None:
    """Exit codes are as a shell tells them; the ended terminal stays until it is deleted."""
    number = new_terminal(http, "sh", "-c", script)
    assert wait_for_end(http, number)["exit_code"] == code
    assert http.delete(f"/terminals/{number}").status_code == 200


def test_last_output_is_not_lost(http: httpx.Client) -> None:
    """All a program printed before it ended is there when it is told as ended."""
    for _ in range(20):
        number = new_terminal(http, "sh", "-c", "seq 1 2000; echo last", scrollback_size=262144)
        wait_for_end(http, number)
        lines = scrollback(http, number).split()
        assert lines[-1] == b"last"
        assert len(lines) == 2001
        http.delete(f"/terminals/{number}")


def test_environment(http: httpx.Client, agent: Agent) -> None:
    """A terminal has TERM, HOME, USER, LOGNAME, PATH, LANG, SHELL and the workspace's own."""
    number = new_terminal(http, "sh", "-c", "env; pwd; tty", scrollback_size=262144)
    wait_for_end(http, number)
    text = scrollback(http, number).decode()
    lines = text.splitlines()
    assert "TERM=xterm-256color" in lines
    assert f"HOME={agent.home}" in lines
    assert "USER=root" in lines
    assert "LOGNAME=root" in lines
    assert "LANG=C.UTF-8" in lines
    assert "GREETING=hello" in lines
    assert any(line.startswith("SHELL=/") for line in lines)
    assert any(line.startswith("PATH=/") for line in lines)
    assert str(agent.home) in lines
    assert lines[-1].startswith("/dev/pts/")


def test_scrollback_size_tail_and_clear(http: httpx.Client) -> None:
    """The ring keeps its size, gives its tail, can be resized and cleared while it runs."""
    number = new_terminal(
        http, "sh", "-c", "stty -opost; head -c 300 /dev/zero | tr '\\0' x; echo end; cat",
        scrollback_size=100,
    )  # fmt: skip
    wait_until(lambda: scrollback(http, number).endswith(b"end\n"))
    assert scrollback(http, number) == b"x" * 96 + b"end\n"
    assert scrollback(http, number, bytes=5) == b"xend\n"
    assert scrollback(http, number, bytes=0) == b""
    path = f"/terminals/{number}/scrollback"
    assert http.patch(path, json={"scrollback_size": 10}).json() == {
        "success": True, "terminal_id": str(number), "scrollback_size": 10,
    }  # fmt: skip
    assert scrollback(http, number) == b"xxxxxxend\n"
    assert http.patch(path, json={"scrollback_size": 0}).json()["scrollback_size"] == 65536
    assert http.patch(path, json={"scrollback_size": 262145}).status_code == 400
    assert http.delete(path).json() == {
        "success": True, "terminal_id": str(number), "scrollback_size": 65536,
    }  # fmt: skip
    answer = http.get(path).json()
    assert (answer["scrollback"], answer["size"], answer["alive"]) == ("", 0, True)
    assert answer["max_scrollback_size"] == 262144


def test_delete_ends_the_whole_session(http: httpx.Client, agent: Agent) -> None:
    """Jobs in their own groups, stopped ones and ones deaf to SIGHUP are gone after DELETE."""
    number = new_terminal(http, "bash", "--norc", "-i")
    with Wire(agent) as wire:
        wire.run(number, "sleep 1000 & sleep 1001 & kill -STOP $!")
        wire.run(number, "(trap '' HUP TERM; sleep 1002) &")
        printed = wire.run(number, "echo pids: $(jobs -p) $$ :")
        line = next(text for text in printed.splitlines() if text.startswith("pids: "))
        pids = [int(word) for word in line.split()[1:-1]]
        assert len(pids) == 4
        assert all(alive(pid) for pid in pids)
        assert http.delete(f"/terminals/{number}").status_code == 200
        wait_until(lambda: not any(alive(pid) for pid in pids))
        wire.until_text(type="exit", id=str(number))


def in_front(agent: Agent, command: str) -> bool:
    """Whether the foreground job of one of the agent's terminals is this command."""
    shells = children(agent.process.pid, "pid")
    return any(
        "+" in state and args.strip() == command
        for shell in shells
        for state, _, args in (line.partition(" ") for line in children(int(shell), "stat,args"))
    )


def children(pid: int, wanted: str) -> list[str]:
    """What `ps` tells of the children of a process, a line each."""
    argv = ["ps", "--no-headers", "-o", wanted, "--ppid", str(pid)]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def test_control_keys_and_job_control(http: httpx.Client, agent: Agent) -> None:
    """^C interrupts, ^Z stops, bg and fg work: the shell owns its terminal."""
    number = new_terminal(http, "bash", "--norc", "--noediting", "-i")
    sleeper = "sh -c 'echo go-$((40+2)); exec sleep 1000'"
    with Wire(agent) as wire:

        def press(keys: str, wanted: str) -> None:
            """Type, and wait for what that prints."""
            start = len(wire.output[number])
            wire.type(number, keys)
            wire.until_output(number, wanted, start)

        wire.run(number, "PS1='rea''dy$ '")
        press(f"{sleeper}\n", "go-42")
        press("\x03", "ready$ ")
        assert "code-130" in wire.run(number, "echo code-$?")
        press(f"{sleeper}\n", "go-42")
        press("\x1a", "Stopped")
        assert "Running" in wire.run(number, "bg; jobs")
        press("fg\n", "exec sleep 1000")
        wait_until(lambda: in_front(agent, "sleep 1000"))  # told before it is given the terminal
        press("\x03", "ready$ ")
        assert "exec" not in wire.run(number, "jobs")
        wire.type(number, "\x04")
        assert wire.until_text(type="exit", id=str(number))["code"] == 0


def test_resize_reaches_the_program(http: httpx.Client, agent: Agent) -> None:
    """The start size and a resize (id as text or number) are seen; SIGWINCH is delivered."""
    number = new_terminal(http, "sh", cols=132, rows=50)
    with Wire(agent) as wire:
        assert "50 132" in wire.run(number, "stty size")
        wire.run(number, "trap 'echo win''ch' WINCH")
        wire.say(channel="terminal", type="resize", id=str(number), cols=100, rows=40)
        assert "40 100" in wire.run(number, "stty size")
        assert "winch" in wire.output[number].decode()
        wire.say(channel="terminal", type="resize", id=number, cols=90, rows=30)
        assert "30 90" in wire.run(number, "stty size")
        for wrong in (0, -1, 100000, 1.5, "80", None, True, [80]):
            wire.say(channel="terminal", type="resize", id=number, cols=wrong, rows=30)
        assert "30 90" in wire.run(number, "stty size")
    terminal = http.get(f"/terminals/{number}").json()
    assert (terminal["cols"], terminal["rows"]) == (90, 30)


def test_erasing_a_character_of_several_bytes(http: httpx.Client, agent: Agent) -> None:
    """The terminal is in UTF-8 mode: one backspace takes a whole character."""
    number = new_terminal(http, "sh", "-c", 'read x; printf %s "$x" | od -An -tx1; echo over')
    with Wire(agent) as wire:
        wire.type(number, "aé\x7fb\n")
        assert "61 62\r\n" in wire.until_output(number, "over")


def test_a_large_paste_arrives_whole(http: httpx.Client, agent: Agent) -> None:
    """A megabyte typed at once reaches a program that reads slowly, without loss."""
    size = 1_000_000
    number = new_terminal(
        http, "sh", "-c", f"stty raw -echo; echo ready; head -c {size} | cksum; echo over"
    )
    expected = shutil.which("cksum")
    assert expected is not None
    with Wire(agent) as wire:
        wire.until_output(number, "ready")
        wire.type(number, "x" * size)
        text = wire.until_output(number, "over")
    assert f"{size}" in text


def test_a_program_that_never_reads_does_not_freeze_others(
    http: httpx.Client, agent: Agent
) -> None:
    """Input for a deaf program is bounded and dropped; another terminal goes on."""
    deaf = new_terminal(http, "sh", "-c", "stty raw -echo; echo ready; sleep 1000")
    other = new_terminal(http, "sh")
    with Wire(agent) as wire:
        wire.until_output(deaf, "ready")
        wire.type(deaf, "x" * 1_000_000)
        assert "two-2" in wire.run(other, "echo two-$((1+1))")
    assert agent.memory_kib() < 40 * 1024


def test_one_program_on_an_image_without_shell(tmp_path: Path) -> None:
    """With no shell anywhere the default command is a clear 400; a given program still runs."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/only")
    running = start_agent(tmp_path, env={"SHELL": "/nowhere"}, wrapper=hidden_shells())
    try:
        with running.client() as http:
            answer = http.post("/terminals", json={})
            assert answer.status_code == 400
            assert answer.json()["code"] == "no_shell"
            assert http.get("/runtime").json()["shell"] == ""
            number = new_terminal(http, str(root / "bin/only"), "true")
    finally:
        running.stop()
    assert number == 1


def hidden_shells() -> list[str]:
    """A command that runs another where /bin/bash, /bin/sh and /etc/passwd cannot be used."""
    script = (
        "for path in /bin/bash /bin/sh /bin/dash /etc/passwd; do "
        'mount --bind /dev/null $(readlink -f $path); done; exec "$@"'
    )  # fmt: skip
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


needs = {name: pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not installed")
         for name in ("vim", "top", "tmux")}  # fmt: skip


@needs["vim"]
def test_vim(http: httpx.Client, agent: Agent) -> None:
    """Vim draws, edits, survives a resize, saves and ends."""
    file = agent.home / f"{uuid.uuid4().hex}.txt"
    number = new_terminal(http, "vim", "-u", "NONE", "-N", "-n", str(file), cols=100, rows=30)
    with Wire(agent) as wire:
        wire.until_output(number, "\x1b[?1049h")
        wire.type(number, "ihello from vim\x1b")
        wire.until_output(number, "hello from vim")
        start = len(wire.output[number])
        wire.say(channel="terminal", type="resize", id=str(number), cols=60, rows=12)
        wire.until_output(number, "hello from vim", start)
        wire.type(number, ":call writefile([&lines.'x'.&columns], expand('%').'.size')\r:wq\r")
        assert wire.until_text(type="exit", id=str(number))["code"] == 0
    assert file.read_text() == "hello from vim\n"
    assert Path(f"{file}.size").read_text() == "12x60\n"


@needs["top"]
def test_top(http: httpx.Client, agent: Agent) -> None:
    """Top draws, redraws after a resize, and quits on q."""
    number = new_terminal(http, "top", "-d", "5")
    with Wire(agent) as wire:
        wire.until_output(number, "PID")
        start = len(wire.output[number])
        wire.say(channel="terminal", type="resize", id=str(number), cols=120, rows=40)
        wire.until_output(number, "PID", start)
        wire.type(number, "q")
        assert wire.until_text(type="exit", id=str(number))["code"] == 0


@needs["tmux"]
def test_tmux(http: httpx.Client, agent: Agent) -> None:
    """A shell in tmux in a terminal: sizes and keys pass through, detaching ends the terminal."""
    socket = agent.home / "tmux.sock"
    number = new_terminal(http, "tmux", "-S", str(socket), "-f", "/dev/null", "new", "sh")
    with Wire(agent) as wire:
        assert "23 80" in wire.run(number, "stty size")
        wire.say(channel="terminal", type="resize", id=str(number), cols=100, rows=41)
        wait_until(lambda: "40 100" in wire.run(number, "stty size"))
        wire.type(number, "\x02d")
        assert wire.until_text(type="exit", id=str(number))["code"] == 0
        again = new_terminal(http, "tmux", "-S", str(socket), "attach")
        wire.type(again, "exit\n")
        assert wire.until_text(type="exit", id=str(again))["code"] == 0


def test_disabling_and_stopping_end_the_sessions(tmp_path: Path) -> None:
    """No program of a terminal is left after runtime access is disabled, or the agent stopped."""
    for disable in (True, False):
        running = start_agent(tmp_path)
        try:
            with running.client() as http:
                marker = tmp_path / "pid"
                marker.unlink(missing_ok=True)
                new_terminal(http, "sh", "-c", f"echo $$ > {marker}.new; mv {marker}.new {marker};"
                             " trap '' HUP; while :; do sleep 1000; done")  # fmt: skip
                wait_until(marker.exists)
                pid = int(marker.read_text())
                assert alive(pid)
            if disable:
                with running.control() as control:
                    answer = control.put("/control/runtime", json={"enabled": False})
                    assert answer.json()["enabled"] is False
                    assert not alive(pid)
        finally:
            assert running.stop() == 0
        assert not alive(pid)


def test_descriptors_do_not_leak(http: httpx.Client, agent: Agent) -> None:
    """Opening and closing terminals leaves no descriptor and no zombie behind."""

    def count() -> int:
        return len(list(Path(f"/proc/{agent.process.pid}/fd").iterdir()))

    http.delete(f"/terminals/{new_terminal(http, 'cat')}")
    before = count()
    for _ in range(15):
        first = new_terminal(http, "cat")
        second = new_terminal(http, "true")
        wait_for_end(http, second)
        http.delete(f"/terminals/{first}")
        http.delete(f"/terminals/{second}")
        http.post("/terminals", json={"cmd": ["/nowhere"]})
    assert count() == before
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text()
    assert children == ""
