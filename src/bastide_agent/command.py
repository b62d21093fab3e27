"""The main command of a workspace: when it ends, the machine ends with its code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from bastide_agent.account import NoAccountError, find_account
from bastide_agent.boot import DEFAULT_ENV
from bastide_agent.process import Places, SpawnError, find_program, kill_tree, spawn, wait
from bastide_agent.ring import Ring

OUTPUT_LIMIT = 1024 * 1024  # bytes of output kept
NOT_STARTED = 127


class MainCommand:
    """Runs it, keeps the last MiB of what it prints (`output`), tells how it ended.

    It runs as root, or as `user`: an account of the image.
    """

    def __init__(self, argv: Sequence[str], places: Places, user: str = "") -> None:
        self.output = Ring(OUTPUT_LIMIT)
        self.ended_by: int | None = None
        """The signal that ended it, once one has."""
        self._argv = list(argv)
        self._places = places
        self._user = user
        self._pid: int | None = None

    async def run(self) -> int:
        """Run to the end; the exit code as a shell tells it (128 + signal, 127 not started)."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            argv, places = self._as_user()
            self._pid = spawn(argv, places, (null, writer, writer))
        except (SpawnError, NoAccountError) as error:
            self.output.write(f"{error}\n".encode("utf-8", "replace"))
            os.close(reader)
            return NOT_STARTED
        finally:
            os.close(writer)
            os.close(null)
        loop = asyncio.get_running_loop()
        os.set_blocking(reader, False)
        loop.add_reader(reader, self._drain, reader)
        try:
            code = await wait(self._pid)
        finally:
            loop.remove_reader(reader)
            self._drain(reader)
            os.close(reader)
            self._pid = None
        if code < 0:
            self.ended_by = -code
        return 128 - code if code < 0 else code

    def _as_user(self) -> tuple[list[str], Places]:
        """What to start, and where, so that the command runs as its user."""
        if self._user in {"", "root", "0"}:
            return self._argv, self._places
        account = find_account(self._user)
        program = find_program(self._argv[0], self._places.env)
        own = {"HOME": account.home, "USER": account.name}
        env = {**self._places.env}
        env.update((key, own[key]) for key in own if env.get(key) == DEFAULT_ENV[key])
        return account.command(program, self._argv), Places(env, self._places.workdir)

    def _drain(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):
                data = os.read(fd, 65536)
                if not data:
                    asyncio.get_running_loop().remove_reader(fd)
                    return
                self.output.write(data)

    def signal(self, number: int) -> None:
        """Send a signal to the command and all it started."""
        if self._pid is not None:
            if number == signal.SIGKILL:
                kill_tree(self._pid)
            else:
                with contextlib.suppress(OSError):
                    os.killpg(self._pid, number)
