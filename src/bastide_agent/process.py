"""Starting and ending processes of the workspace.

Every process gets a session of its own, a clean signal state, the workspace's environment and
directory, and an OOM score that makes the kernel end it before the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import stat
from collections.abc import Callable, Mapping, Sequence

CHILD_OOM_SCORE = 600  # the agent and process 1 have 100
RESET_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class SpawnError(Exception):
    """A process could not be started; `errno` is the kernel's reason."""

    def __init__(self, program: str, number: int) -> None:
        reasons = {
            errno.ENOENT: "no such program",
            errno.EACCES: "it may not be executed",
            errno.ENOEXEC: "it is neither a program nor a script with #!",
            errno.E2BIG: "the arguments and the environment are too long",
            errno.EAGAIN: "the workspace has too many processes",
            errno.ENOMEM: "the workspace is out of memory",
        }
        reason = reasons.get(number, os.strerror(number).lower())
        super().__init__(f"failed to start process {program!r}: {reason}")
        self.errno = number


class Places:
    """Where processes start: environment and directory."""

    __slots__ = ("env", "workdir")

    def __init__(self, env: Mapping[str, str], workdir: str) -> None:
        self.env = dict(env)
        self.workdir = workdir

    def enter(self) -> None:
        """Go to the working directory (children inherit it); `/` when it is not there."""
        for place in (self.workdir, "/"):
            with contextlib.suppress(OSError):
                os.chdir(place)
                return


def find_program(name: str, env: Mapping[str, str]) -> str:
    """The file to execute for a command name, by the PATH in `env`.

    Raises:
        SpawnError: there is none.
    """
    if "/" in name:
        return name
    found = errno.ENOENT
    for folder in env.get("PATH", "").split(":"):
        path = f"{folder or '.'}/{name}"
        try:
            if stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  (pathlib is dear to import)
                if os.access(path, os.X_OK):
                    return path
                found = errno.EACCES
        except OSError:
            continue
        except ValueError:
            break
    raise SpawnError(name, found)


def _expose(pid: int) -> None:
    """Let the kernel end a process, and whatever it starts from now on, before the agent.

    From outside and after the start: if the agent took the score on and passed it on, it would
    be the largest victim itself while a busy machine keeps it waiting for the new process.
    """
    with contextlib.suppress(OSError):
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % CHILD_OOM_SCORE)
        finally:
            os.close(fd)


def spawn(
    argv: Sequence[str], places: Places, stdio: tuple[int, int, int], tty: str | None = None
) -> int:
    """Start a program in a new session; its pid.

    `stdio` are descriptors for standard input, output and error. With `tty` (the path of a
    pseudo-terminal) that terminal is opened for all three instead and becomes the controlling
    one.

    Raises:
        SpawnError: it cannot be started.
    """
    program = find_program(argv[0], places.env)
    if tty is None:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio)
        ]
    else:
        actions = [(os.POSIX_SPAWN_OPEN, 0, tty, os.O_RDWR, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, 0, target) for target in (1, 2)]
    places.enter()
    try:
        pid = os.posix_spawn(
            program, list(argv), places.env, file_actions=actions,
            setsid=True, setsigmask=(), setsigdef=RESET_SIGNALS,
        )  # fmt: skip
    except OSError as error:
        raise SpawnError(argv[0], error.errno or errno.EINVAL) from None
    except ValueError:
        raise SpawnError(argv[0], errno.EINVAL) from None
    _expose(pid)
    return pid


def on_exit(pid: int, ended: Callable[[int], None]) -> None:
    """Call `ended` once with the exit code of a child, or minus the signal that ended it."""
    loop = asyncio.get_running_loop()
    fd = os.pidfd_open(pid)

    def reap() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        _, status = os.waitpid(pid, 0)
        ended(os.waitstatus_to_exitcode(status))

    loop.add_reader(fd, reap)


async def wait(pid: int) -> int:
    """Wait for a child to end; its exit code, or minus the signal that ended it."""
    code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    on_exit(pid, lambda value: None if code.done() else code.set_result(value))
    return await asyncio.shield(code)


def _stat_fields(pid: int) -> tuple[int, int, int, int] | None:
    """Parent, process group, session and terminal (0: none) of a process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.read(fd, 1024)
    except OSError:
        return None
    finally:
        os.close(fd)
    fields = raw[raw.rfind(b")") + 2 :].split()
    if len(fields) < 5:
        return None
    return int(fields[1]), int(fields[2]), int(fields[3]), int(fields[4])


def _listed() -> list[int]:
    """Every process that `/proc` shows."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return []


def others() -> list[int]:
    """Every process but the agent and process 1, those that only wait to be reaped included."""
    return [pid for pid in _listed() if pid not in {1, os.getpid()}]


def has_terminal(pid: int) -> bool:
    """Whether a process has a controlling terminal."""
    fields = _stat_fields(pid)
    return fields is not None and fields[3] != 0


def tree(leaders: set[int]) -> set[int]:
    """The processes that belong to some leaders: their groups, sessions, and all descendants.

    A process that made itself a daemon (new session, parent gone) is on its own and not listed.
    """
    listed = _listed()
    if not listed:
        return set(leaders)
    parents: dict[int, int] = {}
    members: set[int] = set()
    for pid in listed:
        fields = _stat_fields(pid)
        if fields is not None:
            parent, group, session, _ = fields
            parents[pid] = parent
            if not leaders.isdisjoint((pid, parent, group, session)):
                members.add(pid)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in members and pid not in members}
        members |= more
        grown = bool(more)
    return members - {os.getpid(), 1}


def kill_tree(leader: int, number: int = signal.SIGKILL) -> None:
    """Signal a child of ours that has not been waited for, and every process it started.

    SIGKILL goes on until no new one appears, so that none escapes by forking meanwhile. The tree
    is read before the first kill, because orphans lose their place in it; before that the
    leader's group is stopped, all of it in one step, so that a fork bomb neither grows nor keeps
    us from the processor.
    """
    seen = {leader}
    if number == signal.SIGKILL:
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGSTOP)
    for _ in range(16 if number == signal.SIGKILL else 1):
        members = tree(seen)
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        if members <= seen:
            break
        seen |= members
    if number == signal.SIGKILL:
        with contextlib.suppress(OSError):
            os.killpg(leader, number)
