"""How a machine ends inside: who is told, who is waited for, and with what code."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from tests.agent.conftest import DEADLINE
from tests.agent.isolated import RUNTIME_PORT, RUNTIME_TOKEN, Isolated
from tests.agent.wire import wait_until

pytestmark = pytest.mark.host

Isolate = Callable[..., Isolated]
DAEMON = """trap 'busybox sleep 0.3; echo done > /tmp/{0}.told; exit 0' {1}
echo $$ > /tmp/{0}.up
while :; do busybox sleep 0.1; done
"""
STUBBORN = "trap '' TERM HUP; echo up > /tmp/{0}.up; while :; do busybox sleep 0.1; done\n"


class Machine:
    """An isolated agent, asked from outside."""

    def __init__(self, agent: Isolated, tmp: int) -> None:
        self.agent = agent
        self._tmp = tmp

    def post(self, path: str, *cmd: str) -> None:
        """Have its runtime run a command; of a stream only the beginning is waited for."""

        def work() -> None:
            url = f"http://127.0.0.1:{RUNTIME_PORT}{path}"
            headers = {"Authorization": f"Bearer {RUNTIME_TOKEN}"}
            body = {"cmd": list(cmd)}
            with httpx.stream("POST", url, json=body, headers=headers, timeout=DEADLINE) as answer:
                assert answer.is_success
                next(answer.iter_raw())

        self.agent.inside(work)

    def sh(self, line: str, *arguments: str) -> None:
        """Run a line of shell to its end."""
        self.post("/exec", "sh", "-c", line, *arguments)

    def daemon(self, name: str, script: str) -> None:
        """Start one as from a terminal, on its own, and wait until it stands."""
        self.sh('busybox setsid sh -c "$0" > /dev/null 2>&1 < /dev/null &', script)
        wait_until(lambda: self.there(f"{name}.up"))

    def there(self, name: str) -> bool:
        """Whether a file is in its /tmp, also once it has ended."""
        try:
            return os.stat(name, dir_fd=self._tmp).st_size > 0
        except FileNotFoundError:
            return False

    def end(self) -> int:
        """Ask it to end; its exit code."""
        return self.agent.ask_to_end(DEADLINE)


@contextmanager
def machine(isolate: Isolate, **changes: object) -> Iterator[Machine]:
    agent = isolate(**changes)
    # an open directory stays when the machine and with it its mounts are gone
    tmp = os.open(f"/proc/{agent.pid}/root/tmp", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Machine(agent, tmp)
    finally:
        os.close(tmp)
        agent.stop()


def test_everybody_is_told(isolate: Isolate) -> None:
    """A daemon, a stopped one, a task, a shell on a terminal and the command end as they like."""
    command = ["sh", "-c", DAEMON.format("command", "TERM").replace("exit 0", "exit 3")]
    with machine(isolate, cmd=command) as one:
        wait_until(lambda: one.there("command.up"))
        one.daemon("daemon", DAEMON.format("daemon", "TERM"))
        one.daemon("stopped", DAEMON.format("stopped", "TERM"))
        one.sh("kill -STOP $(cat /tmp/stopped.up)")
        shell = "trap '' TERM\n" + DAEMON.format("terminal", "HUP")  # as one in use does
        one.post("/terminals", "sh", "-c", shell)
        one.post("/exec/stream", "sh", "-c", DAEMON.format("task", "TERM"))
        wait_until(lambda: one.there("terminal.up") and one.there("task.up"))
        assert one.end() == 3
        for name in ("command", "daemon", "stopped", "terminal", "task"):
            assert one.there(f"{name}.told"), name


def test_a_daemon_without_terminal_is_not_hung_up(isolate: Isolate) -> None:
    """SIGHUP, which makes daemons read their settings again, is for those on a terminal."""
    with machine(isolate) as one:
        script = "trap 'echo x > /tmp/daemon.hup' HUP\n" + DAEMON.format("daemon", "TERM")
        one.daemon("daemon", script)
        assert one.end() == 0
        assert one.there("daemon.told")
        assert not one.there("daemon.hup")


def test_who_does_not_heed_is_killed_after_the_grace(isolate: Isolate) -> None:
    """They hold the end up no longer than they may; the command's own end is still told."""
    command = ["sh", "-c", STUBBORN.format("command")]
    with machine(isolate, cmd=command, grace=5) as one:
        one.daemon("stubborn", STUBBORN.format("stubborn"))
        one.daemon("daemon", DAEMON.format("daemon", "TERM"))
        began = time.monotonic()
        assert one.end() == 128 + signal.SIGKILL
        assert time.monotonic() - began >= 5
        assert one.there("daemon.told")


def test_what_grows_without_end_ends(isolate: Isolate) -> None:
    """Processes that ignore the request and start others all the while are killed together."""
    bomb = (
        "trap '' TERM\necho up > /tmp/bomb.up\nwhile :; do sh -c 'exec busybox sleep 0.2' & done\n"
    )
    with machine(isolate, grace=0.5) as one:
        one.daemon("bomb", bomb)
        assert one.end() == 0


def test_daemons_are_told_when_the_command_ends(isolate: Isolate) -> None:
    """The command's end is the machine's, and whoever runs beside it may put things in order."""
    command = ["sh", "-c", "until [ -e /tmp/go ]; do busybox sleep 0.1; done; exit 7"]
    with machine(isolate, cmd=command) as one:
        one.daemon("daemon", DAEMON.format("daemon", "TERM"))
        # after the answer: the agent ends with the command, and whoever it answers then
        one.sh("(busybox sleep 0.3; echo > /tmp/go) > /dev/null 2>&1 < /dev/null &")
        assert one.agent.launcher.wait(DEADLINE) == 7
        assert one.there("daemon.told")
