"""The SSH server as a process of the agent: started, kept running, told of changes, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from bastide_agent.process import Places, SpawnError, kill_tree, on_exit, spawn
from bastide_agent.shell import default_shell
from bastide_agent.ssh import place
from bastide_agent.ssh.access import Access
from bastide_agent.ssh.journal import Journal

FIRST_PAUSE = 0.2  # seconds before it is started again; doubled each time
LAST_PAUSE = 30.0
STEADY = 60.0  # seconds after which an end counts as the first one
START_TIMEOUT = 5.0  # seconds waited for it to listen
END_TIMEOUT = 5.0


class SshServer:
    """OpenSSH's server. `journal` holds the last of what it said."""

    def __init__(self, places: Places, port: int) -> None:
        self.journal = Journal()
        self.enabled = False
        self._places = places
        self._port = port
        self._pid: int | None = None
        self._ended = asyncio.Event()
        self._pause = FIRST_PAUSE
        self._started = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()

    @property
    def running(self) -> bool:
        """Whether the server is there."""
        return self._pid is not None

    async def apply(self, access: Access) -> None:
        """Bring the server in line; sessions are left alone unless it is disabled.

        Returns once it listens, or has failed to; then it is tried again.

        Raises:
            OSError: its files cannot be written.
        """
        async with self._lock:
            self.enabled = access.enabled
            if not access.enabled:
                await self._stop()
                place.remove()
                return
            self.journal.open()
            shell = default_shell(self._places.env.get("SHELL", "")) or place.NO_SHELL
            changed = place.write(access, self._places.env, shell, self._port)
            if self._pid is None:
                if self._again is not None:
                    self._again.cancel()
                self._pause = FIRST_PAUSE
                self._start()
                await self._settled()
            elif changed:
                # It starts itself anew with the new settings and keeps its sessions.
                os.kill(self._pid, signal.SIGHUP)

    def start_no_more(self) -> None:
        """When it ends now, let that be its end."""
        self.enabled = False
        if self._again is not None:
            self._again.cancel()
            self._again = None

    async def stop(self) -> None:
        """End server and sessions; the files stay, the machine is going down."""
        async with self._lock:
            self.start_no_more()
            await self._stop()

    async def _stop(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._pid is not None:
            kill_tree(self._pid)
            await asyncio.wait_for(self._ended.wait(), END_TIMEOUT)
        self.journal.close()

    async def _settled(self) -> None:
        """Wait until it listens or has ended."""
        waits = [
            asyncio.ensure_future(event.wait()) for event in (self.journal.listening, self._ended)
        ]
        await asyncio.wait(waits, timeout=START_TIMEOUT, return_when="FIRST_COMPLETED")
        for wait in waits:
            wait.cancel()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._again = None
        self._ended.clear()
        self.journal.listening.clear()
        self._started = loop.time()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._pid = spawn(
                [place.SERVER, "-D", "-f", place.CONFIG], self._places, (null, null, writer)
            )
        except SpawnError as error:
            self.journal.note(str(error))
            os.close(reader)
            self._ended.set()
            self._repeat()
            return
        finally:
            os.close(writer)
            os.close(null)
        os.set_blocking(reader, False)
        loop.add_reader(reader, self._complaint, reader)
        on_exit(self._pid, self._on_exit)

    def _complaint(self, fd: int) -> None:
        """What it says before it has read its settings, on standard error."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(fd, 4096)
            if not data:
                asyncio.get_running_loop().remove_reader(fd)
                os.close(fd)
            for line in data.decode("utf-8", "replace").splitlines():
                self.journal.note(line)

    def _on_exit(self, code: int) -> None:
        self.journal.note(f"the SSH server ended with code {code}")
        self._pid = None
        self._ended.set()
        if self.enabled:
            self._repeat()

    def _repeat(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._started > STEADY:
            self._pause = FIRST_PAUSE
        self._again = loop.call_later(self._pause, self._start)
        self._pause = min(self._pause * 2, LAST_PAUSE)
