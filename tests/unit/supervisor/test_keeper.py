"""One service kept running, with real short-lived processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bastide.supervisor.backoff import Backoff
from bastide.supervisor.cloud import service_environment
from bastide.supervisor.keeper import Keeper
from bastide.supervisor.log import Log
from bastide.supervisor.process import Process
from bastide.supervisor.record import Entry
from bastide.supervisor.service import Launch, Service

DEADLINE = 20.0
PAUSE = (sys.executable, "-c", "import signal; signal.pause()")


def left_behind() -> subprocess.Popen[bytes]:
    """A process as an earlier supervisor would have left it."""
    return subprocess.Popen(PAUSE)


class Watch:
    """Waits for what a keeper shows."""

    def __init__(self) -> None:
        self.keeper: Keeper | None = None
        self._changed = asyncio.Event()

    def changed(self) -> None:
        self._changed.set()

    async def until(self, test: Callable[[Entry], bool]) -> Entry:
        """The entry, once it passes the test."""
        assert self.keeper is not None
        async with asyncio.timeout(DEADLINE):
            while not test(self.keeper.entry):
                self._changed.clear()
                await self._changed.wait()
        return self.keeper.entry


def keeper(
    tmp_path: Path,
    argv: tuple[str, ...],
    watch: Watch,
    adopted: Process | None = None,
    *,
    appends: bool = True,
) -> Keeper:
    watch.keeper = Keeper(
        Service("toy", lambda: Launch(argv), grace=5, appends=appends),
        Log(tmp_path / "toy.log"),
        watch.changed,
        adopted=adopted,
    )
    return watch.keeper


async def test_a_killed_service_comes_back(tmp_path: Path) -> None:
    """After kill -9 there is a new process, and the old end is told."""
    watch = Watch()
    kept = keeper(tmp_path, PAUSE, watch)
    task = asyncio.create_task(kept.keep())
    first = (await watch.until(lambda entry: entry.state == "running")).process
    assert first is not None
    first.signal(signal.SIGKILL)
    second = await watch.until(lambda entry: entry.restarts == 1 and entry.state == "running")
    assert second.process not in (None, first)
    assert second.last_exit == "killed by SIGKILL"
    kept.stop()
    await task
    assert kept.entry.state == "stopped"
    assert second.process is not None
    assert not second.process.alive


async def test_a_crash_loop_slows_down(tmp_path: Path) -> None:
    """Each crash doubles the wait, seen on a clock that only the keeper's waits move."""
    now = 0.0
    delays: list[float] = []
    kept: Keeper

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        delays.append(seconds)
        if len(delays) == 4:
            kept.stop()

    kept = Keeper(
        Service("toy", lambda: Launch((sys.executable, "-c", "print('no'); raise SystemExit(3)"))),
        Log(tmp_path / "toy.log"),
        lambda: None,
        backoff=Backoff(first=1, most=4, settled=60),
        clock=lambda: now,
        sleep=sleep,
    )
    async with asyncio.timeout(DEADLINE):
        await kept.keep()
    assert delays == [1, 2, 4, 4]
    assert kept.entry.last_exit == "exit code 3"
    assert kept.log.tail(10) == ["no"] * 4


async def test_a_missing_program_is_told_and_tried_again(tmp_path: Path) -> None:
    """A command that cannot be run counts as an end, with the reason."""
    watch = Watch()
    kept = keeper(tmp_path, ("/nonexistent/program",), watch)
    task = asyncio.create_task(kept.keep())
    entry = await watch.until(lambda entry: entry.restarts >= 2)
    assert "could not be started" in (entry.last_exit or "")
    kept.stop()
    await task


async def test_a_launch_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    """Whatever keeps a service from being set up, it is tried again until it works."""
    watch = Watch()
    kept = keeper(tmp_path, PAUSE, watch)
    outcomes = iter([ValueError("no key"), None])

    def launch() -> Launch:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        return Launch(PAUSE)

    kept.service = Service("toy", launch)
    task = asyncio.create_task(kept.keep())
    entry = await watch.until(lambda entry: entry.restarts == 1)
    assert entry.last_exit == "could not be started: no key"
    await watch.until(lambda entry: entry.state == "running")
    kept.stop()
    await task


async def test_a_running_process_is_adopted(tmp_path: Path) -> None:
    """What an earlier supervisor started is kept, watched, and replaced when it ends."""
    left = left_behind()
    process = Process.of(left)
    watch = Watch()
    kept = keeper(tmp_path, PAUSE, watch, adopted=process)
    task = asyncio.create_task(kept.keep())
    entry = await watch.until(lambda entry: entry.state == "running")
    assert entry.process == process
    process.signal(signal.SIGKILL)
    entry = await watch.until(lambda entry: entry.restarts == 1 and entry.state == "running")
    assert entry.process != process
    left.wait()
    kept.stop()
    await task


async def test_a_dead_process_is_not_adopted(tmp_path: Path) -> None:
    """A recorded process that is gone, or whose pid was reused, is started anew."""
    left = left_behind()
    stale = Process(left.pid, 1)
    watch = Watch()
    kept = keeper(tmp_path, PAUSE, watch, adopted=stale)
    task = asyncio.create_task(kept.keep())
    entry = await watch.until(lambda entry: entry.state == "running")
    assert entry.process != stale
    kept.stop()
    await task
    assert left.poll() is None, "stopping ended a process that was never ours"
    left.kill()
    left.wait()


async def test_stop_is_firm_after_the_grace(tmp_path: Path) -> None:
    """A service that ignores SIGTERM is killed after its grace."""
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    log = Log(tmp_path / "toy.log")

    async def deafened() -> bool:
        return log.tail(1) == ["1"]

    service = Service(
        "toy", lambda: Launch((sys.executable, "-c", deaf)), ready=deafened, grace=0.1
    )
    kept = Keeper(service, log, lambda: None)
    task = asyncio.create_task(kept.keep())
    async with asyncio.timeout(DEADLINE):
        await kept.ready.wait()
        kept.stop()
        await task
    assert kept.entry.last_exit == "killed by SIGKILL"


def test_services_get_only_our_settings() -> None:
    """Of the environment only BASTIDE_* passes, with a known PATH."""
    given = {"BASTIDE_RUN_DIR": "/x", "SECRET": "s", "PATH": "/tmp", "PYTHONPATH": "/tmp"}
    env = service_environment(given)
    assert env["BASTIDE_RUN_DIR"] == "/x"
    assert set(env) == {"BASTIDE_RUN_DIR", "PATH", "LANG"}
    assert "/tmp" not in env["PATH"]


def test_secrets_reach_only_the_services_that_use_them() -> None:
    """An operator's key goes to no service, the database's password to the api alone."""
    database = {"BASTIDE_DATABASE__URL": "postgresql+asyncpg://u:secret@db/bastide"}
    given = {"BASTIDE_CLIENT_ID": "i", "BASTIDE_CLIENT_SECRET": "s", "BASTIDE_TOKEN": "t"}
    plain = service_environment({})
    assert service_environment({**given, **database}) == plain
    assert service_environment({**given, **database}, database=True) == {**plain, **database}


async def test_what_a_service_said_stays_though_it_does_not_append(tmp_path: Path) -> None:
    """One that makes its output non-blocking, and so writes from the beginning, as HAProxy does."""
    code = "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK); print(os.getpid())"
    watch = Watch()
    kept = keeper(tmp_path, (sys.executable, "-c", code), watch, appends=False)
    task = asyncio.create_task(kept.keep())
    await watch.until(lambda entry: entry.restarts == 2)
    kept.stop()
    await task
    said = (tmp_path / "toy.log").read_text().split()
    assert len(said) >= 2
    assert len(set(said)) == len(said)
