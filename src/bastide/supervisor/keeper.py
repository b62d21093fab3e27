"""Keeps one service running: starts it, watches it, starts it again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable

import structlog

from bastide.supervisor.backoff import Backoff
from bastide.supervisor.log import Log
from bastide.supervisor.process import Process
from bastide.supervisor.record import Entry, ServiceState
from bastide.supervisor.service import Service

PROBE_INTERVAL = 0.05
logger = structlog.get_logger()


class Keeper:
    """One service's life under this supervisor.

    `changed` is called whenever what `entry` shows has changed. A process adopted from an
    earlier supervisor is no child of ours: it is watched by its pidfd like the others, only its
    exit code stays unknown.
    """

    def __init__(
        self,
        service: Service,
        log: Log,
        changed: Callable[[], None],
        *,
        adopted: Process | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.service = service
        self.log = log
        self.ready = asyncio.Event()
        self._changed = changed
        self._adopted = adopted
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._sleep = sleep
        self._stop = asyncio.Event()
        self._state: ServiceState = "stopped"
        self._process: Process | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._last_exit: str | None = None

    @property
    def entry(self) -> Entry:
        """What the record says of it."""
        return Entry(self.service.name, self._state, self._process, self._restarts, self._last_exit)

    async def keep(self) -> None:
        """Run the service until `stop`; returns once it has ended."""
        while not self._stop.is_set():
            began = self._clock()
            if self._begin():
                await self._live()
            if self._stop.is_set():
                break
            delay = self._backoff.after(self._clock() - began)
            self._restarts += 1
            self._set("waiting")
            logger.warning(
                "service ended", service=self.service.name, exit=self._last_exit, again_in=delay
            )
            await self._first_of(self._sleep(delay), self._stop.wait())
        self._set("stopped")

    def stop(self) -> None:
        """Ask for the end; `keep` returns when it has come."""
        self._stop.set()

    def _begin(self) -> bool:
        """Adopt or start the process; whether there is one."""
        self.ready.clear()
        adopted, self._adopted = self._adopted, None
        if adopted is not None and adopted.alive:
            self._process = adopted
            logger.info("service adopted", service=self.service.name, pid=adopted.pid)
        else:
            self.log.trim()
            try:
                self._spawn()
            except Exception as error:  # noqa: BLE001 - whatever the reason, it is tried again
                self.log.finish()
                self._last_exit = f"could not be started: {error}"
                return False
        self._set("starting")
        return True

    def _spawn(self) -> None:
        launch = self.service.launch()
        with self.log.output(appends=self.service.appends) as output:
            self._child = subprocess.Popen(
                launch.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=dict(launch.env),
                start_new_session=True,
            )
        self._process = Process.of(self._child)
        logger.info("service started", service=self.service.name, pid=self._child.pid)

    async def _live(self) -> None:
        """From the start of the process to its end, which `stop` may bring about."""
        probe = asyncio.create_task(self._watch_readiness())
        ended = asyncio.create_task(self._ended())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._end(ended)
        finally:
            for task in (probe, ended, stopped):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self.ready.clear()
        self._process = None
        self._last_exit = self._reap()

    async def _end(self, ended: asyncio.Task[None]) -> None:
        self._set("stopping")
        process = self._process
        if process is None or not process.signal(signal.SIGTERM):
            return
        done, _ = await asyncio.wait({ended}, timeout=self.service.grace)
        if not done:
            logger.warning("service killed", service=self.service.name, grace=self.service.grace)
            process.signal(signal.SIGKILL)
            await ended

    async def _ended(self) -> None:
        """Return when the process has ended."""
        if self._process is None:
            return
        with self._process.opened() as descriptor:
            if descriptor is None:
                return
            loop = asyncio.get_running_loop()
            gone = asyncio.Event()
            loop.add_reader(descriptor, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(descriptor)

    async def _watch_readiness(self) -> None:
        while not await self.service.ready():  # noqa: ASYNC110 - no event tells of another process
            await asyncio.sleep(PROBE_INTERVAL)
        self.ready.set()
        self._set("running")

    def _reap(self) -> str:
        child, self._child = self._child, None
        self.log.finish()
        if child is None:
            return "ended (it was adopted, so its exit code is unknown)"
        code = child.wait()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def _set(self, state: ServiceState) -> None:
        self._state = state
        self._changed()

    @staticmethod
    async def _first_of(*waits: Awaitable[object]) -> None:
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
