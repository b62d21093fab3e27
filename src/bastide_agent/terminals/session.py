"""One terminal: a program on a pseudo-terminal, its output and its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import termios
import time
from collections.abc import Callable, Sequence

from bastide_agent.exec.tasks import start_error
from bastide_agent.http.errors import ApiError
from bastide_agent.process import Places, SpawnError, kill_tree, spawn, tree
from bastide_agent.terminals.output import Output
from bastide_agent.threads import in_thread

UNSENT_LIMIT = 64 * 1024  # bytes waiting for the client above which the program is held
FRAME_SIZE = 32 * 1024  # bytes of one frame to the client
READ_SIZE = 16 * 1024
READ_ROUND = 64 * 1024  # bytes read before others have their turn
REST_WATCHED = 0.004  # seconds a noisy terminal rests after its turn: 16 MB/s are enough to see
REST_UNWATCHED = 0.02  # 3 MB/s while nobody looks, so that it does not eat a processor
LAST_READ = 1024 * 1024  # bytes read at most once the program has ended
INPUT_LIMIT = 256 * 1024  # bytes of input that may wait for the program
INPUT_TIMEOUT = 2.0  # seconds a program may leave a full input untouched
HANGUP_GRACE = 1.0  # seconds between SIGHUP and SIGKILL
KILL_TIMEOUT = 5.0  # seconds to wait for a killed program
_PEER = 0x5441  # TIOCGPTPEER: open the other end of a terminal, whatever /dev/pts has
IUTF8 = 0x4000  # erase whole characters; not among the names of `termios`


class Session:
    """A program on a terminal of its own. `exit_code` is None while it runs.

    Output goes to `output`; while a connection is attached the program is held once
    `UNSENT_LIMIT` bytes wait for the client, as a slow terminal would hold it.
    """

    def __init__(
        self, number: int, argv: Sequence[str], *, size: tuple[int, int], scrollback: int,
        places: Places, changed: Callable[[], None],
    ) -> None:  # fmt: skip
        """Start it; `size` is columns and rows, `changed` is called when there is news.

        Raises:
            ApiError: 400 when the program cannot be run, 429 or 503 when the workspace lacks room.
        """
        self.number = number
        self.command = list(argv)
        self.cols, self.rows = size
        self.created_at = time.time()
        self.exit_code: int | None = None
        self.output = Output(scrollback)
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._input = bytearray()
        self._room = asyncio.Event()
        self._ended = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._exit_told = True
        self._attached = False
        self._held = False
        self._resting: asyncio.TimerHandle | None = None
        self._keep_zombie = False
        self._open(places)

    def _open(self, places: Places) -> None:
        try:
            self._master, self._slave = os.openpty()
        except OSError as error:
            raise out_of_resources("open a pseudo-terminal", error) from None
        try:
            os.set_blocking(self._master, False)
            attributes = termios.tcgetattr(self._slave)
            attributes[0] |= IUTF8
            termios.tcsetattr(self._slave, termios.TCSANOW, attributes)
            termios.tcsetwinsize(self._slave, (self.rows, self.cols))
            self._pid = spawn(self.command, places, (0, 1, 2), os.ttyname(self._slave))
            self._pidfd = self._watch_end()
        except SpawnError as error:
            self._close_terminal()
            raise start_error(error) from None
        except (OSError, termios.error) as error:
            self._close_terminal()
            raise out_of_resources("set up a pseudo-terminal", error) from None
        self._loop.add_reader(self._master, self._readable)
        self._loop.add_reader(self._pidfd, self._end)

    def _watch_end(self) -> int:
        try:
            return os.pidfd_open(self._pid)
        except OSError:
            kill_tree(self._pid)
            os.waitpid(self._pid, 0)
            raise

    def _close_terminal(self) -> None:
        os.close(self._master)
        self.rest()

    # -- a snapshot

    def rest(self) -> None:
        """Let go of the program's end of the terminal: no snapshot can hold it here.

        It is kept only so that the terminal outlives a moment in which no program has it open.
        """
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1

    def wake(self) -> None:
        """Take the program's end up again."""
        if self._slave < 0 and self.exit_code is None:
            with contextlib.suppress(OSError):
                self._slave = fcntl.ioctl(self._master, _PEER, os.O_RDWR | os.O_NOCTTY)

    # -- what the program prints

    def _readable(self) -> None:
        noisy = self._read(READ_ROUND)
        if self.output.unsent:
            self._changed()
        self._held = self.output.unsent >= UNSENT_LIMIT
        if noisy:
            rest = REST_WATCHED if self._attached else REST_UNWATCHED
            self._resting = self._loop.call_later(rest, self._rested)
        if noisy or self._held:
            self._loop.remove_reader(self._master)

    def _read(self, limit: int) -> bool:
        """Read what there is; True when it may have been more than `limit` bytes."""
        left = limit
        while left > 0:
            try:
                data = os.read(self._master, READ_SIZE)
            except OSError:  # nothing more now (EAGAIN), or ever (EIO: nobody has it open)
                return False
            if not data:
                return False
            self.output.write(data)
            left -= len(data)
        return True

    def _rested(self) -> None:
        self._resting = None
        self._listen()

    def _release(self) -> None:
        if self._held and self.output.unsent <= UNSENT_LIMIT // 2:
            self._held = False
            self._listen()

    def _listen(self) -> None:
        if self.exit_code is None and not self._held and self._resting is None:
            self._loop.add_reader(self._master, self._readable)

    # -- the live connection

    def attach(self) -> None:
        """A connection came: it gets the scrollback, what follows, and the end."""
        self._attached = True
        self._exit_told = False
        self.output.attach()

    def detach(self) -> None:
        """The connection is gone: the program runs on into the scrollback."""
        self._attached = False
        self.output.detach()
        self._release()

    def next_frame(self) -> str | bytes | None:
        """The next message for the connection; None when it has everything."""
        if not self._attached:
            return None
        if self.output.unsent:
            frame = bytes((self.number,)) + self.output.take(FRAME_SIZE)
            self._release()
            return frame
        if self.exit_code is not None and not self._exit_told:
            self._exit_told = True
            return (
                f'{{"channel":"terminal","type":"exit","id":"{self.number}",'
                f'"code":{self.exit_code}}}'
            )
        return None

    # -- what the client types

    async def write(self, data: bytes) -> None:
        """Give input to the program. Waits while too much of it lies there untouched.

        A program that takes nothing for `INPUT_TIMEOUT` loses what waits: other terminals share
        the client's connection and must not stand still for it.
        """
        if self.exit_code is not None:
            return
        self._input += data
        self._feed()
        while len(self._input) > INPUT_LIMIT:
            before = len(self._input)
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), INPUT_TIMEOUT)
            if len(self._input) >= before:
                self._input.clear()
                self._loop.remove_writer(self._master)

    def _feed(self) -> None:
        try:
            while self._input:
                del self._input[: os.write(self._master, self._input)]
        except BlockingIOError:
            self._loop.add_writer(self._master, self._feed)
        except OSError:
            self._input.clear()
        if not self._input:
            self._loop.remove_writer(self._master)
        if len(self._input) <= INPUT_LIMIT:
            self._room.set()

    def resize(self, cols: int, rows: int) -> None:
        """Change the window; the kernel tells the program in the foreground (SIGWINCH)."""
        if self.exit_code is None:
            self.cols, self.rows = cols, rows
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetwinsize(self._master, (rows, cols))

    # -- the end

    def _end(self) -> None:
        # WNOWAIT: while it is being killed the number must stay taken.
        info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if info is None:
            return
        self._loop.remove_reader(self._pidfd)
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._input.clear()
        self._room.set()
        self._read(LAST_READ)
        exited = info.si_code == os.CLD_EXITED
        self.exit_code = info.si_status if exited else 128 + info.si_status
        self._close_terminal()
        if not self._keep_zombie:
            self._reap()
        self._ended.set()
        self._changed()

    def _reap(self) -> None:
        os.close(self._pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    async def close(self) -> None:
        """End the program and all of its session: SIGHUP, then SIGKILL.

        What a program that ended by itself left running (`nohup`) is on its own and stays.
        """
        if self.exit_code is not None and self._closing is None:
            return
        if self._closing is None:
            self._closing = self._loop.create_task(self._kill())
        await asyncio.shield(self._closing)

    async def _kill(self) -> None:
        self._keep_zombie = True
        await in_thread(hang_up, self._pid)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), HANGUP_GRACE)
        await in_thread(kill_tree, self._pid)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), KILL_TIMEOUT)
        self._keep_zombie = False
        if self.exit_code is not None:
            self._reap()


def hang_up(leader: int) -> None:
    """Tell all programs of a session that their terminal is gone; stopped ones must hear it."""
    for pid in tree({leader}):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGHUP)
            os.kill(pid, signal.SIGCONT)


def out_of_resources(what: str, error: Exception) -> ApiError:
    """A 503 that says what the workspace lacks."""
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number).lower() if number else str(error)
    return ApiError(503, "out_of_resources", f"the workspace cannot {what}: {reason}")
