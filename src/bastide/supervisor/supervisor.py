"""The supervisor: starts its services in order, keeps them running, stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from bastide.supervisor.keeper import Keeper
from bastide.supervisor.log import Log
from bastide.supervisor.process import Process
from bastide.supervisor.record import Record, lock_path, record_path
from bastide.supervisor.service import Launch, Service

FOLLOW_INTERVAL = 0.2
TRIM_INTERVAL = 60.0
logger = structlog.get_logger()


class AlreadyRunning(Exception):  # noqa: N818 - reads as a state, which it is
    """Another supervisor holds the lock of this server."""


class Supervisor:
    """Keeps `services` running, the guard that watches this process among them.

    `run_dir` holds the record and the lock, `log_dir` one file per service. `guard` says
    how to start the guard of this process, or is None for none. `echo` is given each log line
    as (service, line), for a foreground run.
    """

    def __init__(
        self,
        services: Sequence[Service],
        run_dir: Path,
        log_dir: Path,
        *,
        guard: Callable[[Process], Launch] | None = None,
        echo: Callable[[str, str], None] | None = None,
    ) -> None:
        me = Process.find(os.getpid())
        if me is None:
            raise RuntimeError("/proc is not mounted; the supervisor needs it")
        self._me = me
        self._run_dir = run_dir
        self._log_dir = log_dir
        self._services = list(services)
        self._guard = None if guard is None else Service("guard", lambda: guard(me), grace=5.0)
        self._echo = echo
        self._keepers: list[Keeper] = []
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask for an orderly end; `run` returns when it has come."""
        self._stopping.set()

    async def run(self) -> None:
        """Start everything and keep it running until `stop`.

        Raises:
            AlreadyRunning: another supervisor of this `run_dir` is alive.
        """
        with self._locked():
            earlier = Record.read(record_path(self._run_dir))
            self._keepers = [
                self._keeper(service, earlier)
                for service in ([self._guard] if self._guard else []) + self._services
            ]
            self._note()
            tasks: list[tuple[Keeper, asyncio.Task[None]]] = []
            chores = [asyncio.create_task(self._trim())]
            if self._echo is not None:
                chores.append(asyncio.create_task(self._follow(self._echo)))
            try:
                await self._start(tasks)
                await self._stopping.wait()
            finally:
                self._stopping.set()
                self._note()
                await self._finish(tasks)
                for chore in chores:
                    chore.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await chore
                record_path(self._run_dir).unlink(missing_ok=True)
                logger.info("supervisor ended")

    async def _start(self, tasks: list[tuple[Keeper, asyncio.Task[None]]]) -> None:
        """Start each service once the one before is ready, or has had its time."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            for keeper in self._keepers:
                if self._stopping.is_set():
                    return
                tasks.append((keeper, asyncio.create_task(keeper.keep())))
                ready = asyncio.create_task(keeper.ready.wait())
                await asyncio.wait(
                    {ready, stopping},
                    timeout=keeper.service.patience,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not ready.done():
                    ready.cancel()
                    logger.warning("service is not ready; going on", service=keeper.service.name)
        finally:
            stopping.cancel()

    @staticmethod
    async def _finish(tasks: list[tuple[Keeper, asyncio.Task[None]]]) -> None:
        """Stop in reverse order, but the guard first: it must not start a new supervisor."""
        last_to_first = tasks[:1] + tasks[:0:-1] if _guarded(tasks) else tasks[::-1]
        for keeper, task in last_to_first:
            keeper.stop()
            await task

    def _keeper(self, service: Service, earlier: Record | None) -> Keeper:
        entry = earlier.entry(service.name) if earlier else None
        log = Log(self._log_dir / f"{service.name}.log")
        log.skip()
        return Keeper(service, log, self._note, adopted=entry.process if entry else None)

    def _note(self) -> None:
        """Write down what runs."""
        entries = tuple(keeper.entry for keeper in self._keepers)
        record = Record(self._me, self._stopping.is_set(), entries)
        try:
            record.write(record_path(self._run_dir))
        except OSError as error:
            # A full disk must not end what runs; the next change writes it again.
            logger.warning("the record could not be written", error=str(error))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(lock_path(self._run_dir), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(f"a supervisor runs already in {self._run_dir}") from None
            yield
        finally:
            os.close(descriptor)

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(TRIM_INTERVAL)
            for keeper in self._keepers:
                await asyncio.to_thread(keeper.log.trim)

    async def _follow(self, echo: Callable[[str, str], None]) -> None:
        while True:
            for keeper in self._keepers:
                for line in keeper.log.news():
                    echo(keeper.service.name, line)
            await asyncio.sleep(FOLLOW_INTERVAL)


async def supervise(supervisor: Supervisor) -> None:
    """Run a supervisor until SIGTERM, SIGINT or SIGHUP asks for an orderly end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()


def _guarded(tasks: list[tuple[Keeper, asyncio.Task[None]]]) -> bool:
    return bool(tasks) and tasks[0][0].service.name == "guard"


def halt(run_dir: Path, grace: float = 15.0) -> list[str]:
    """End what a dead supervisor left behind, last started first; the names of what ended."""
    record = Record.read(record_path(run_dir))
    if record is None:
        return []
    guards = [entry for entry in record.entries if entry.name == "guard"]
    services = [entry for entry in reversed(record.entries) if entry.name != "guard"]
    ended = []
    for entry in guards + services:
        if entry.process is not None and entry.process.alive:
            entry.process.end(grace)
            ended.append(entry.name)
    record_path(run_dir).unlink(missing_ok=True)
    return ended
