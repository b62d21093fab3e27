"""CRIU, through runc: the memory of a container to files and back."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from bastide.node.errors import BootFailed, Conflict, NoSpace, Unsupported
from bastide.node.machines.runc import Runc, last_error
from bastide.node.machines.version import ProgramVersion, words

FLOOR = "4.2"
"""It takes pidfds, which agent and tini hold, and sockets of Linux 6.16 and newer, which have no
SO_PASSCRED any more: 4.1 gives up on every listening port there."""
HOME = "criu"
"""Below `state_dir/runtime`: the directory with the program `criu` in it."""
CONFIG_NAME = "criu.conf"
_DEADLINE = 600.0
"""Seconds for the memory of one machine; a gigabyte takes about four."""
_MOST_LOG = 256 * 1024

# Where programs watch directories: on an overlay the kernel tells only the inode, so the names
# are looked for. Files that were deleted while open are kept up to the limit (bytes).
_WATCHED = ("/root", "/home", "/workspace", "/app", "/srv", "/opt", "/tmp", "/var", "/usr", "/etc")  # noqa: S108
_SETTINGS = ("ghost-limit 1073741824", *(f"irmap-scan-path {path}" for path in _WATCHED))
_COMMON = (
    *("--tcp-established", "--file-locks", "--ext-unix-sk"),
    *("--empty-ns", "network", "--manage-cgroups-mode", "soft"),
)
_FULL = "No space left"
_ADVICE = {
    "fsnotify": "a program watches files in a place where they cannot be found again; stop it",
    "io_uring": "a program uses io_uring, which cannot be captured; stop it",
    "tty": "a program holds a terminal in a way that cannot be captured; close it",
    "Unseizable": "a program was about to start another; try again",
    "ghost": "a program holds a large file that was deleted; stop it",
}


class Version(ProgramVersion):
    """The version of a criu."""

    @property
    def enough(self) -> bool:
        """At or above the floor."""
        return self.at_least(FLOOR)


def read_version(*command: Path | str) -> Version | None:
    """What a criu says of itself, or None when it is not there or does not start. Blocks."""
    match = re.search(r"^Version: (\d+(?:\.\d+)*)", words(*command) or "", re.MULTILINE)
    if match is None:
        return None
    return Version(match.group(1), tuple(int(part) for part in match.group(1).split(".")))


class Criu:
    """Captures the memory of containers of `runc` and brings it back.

    `program` is found by runc in its PATH; `config` is what it reads beside its arguments.
    """

    def __init__(self, program: Path, config: Path, runc: Runc) -> None:
        self.program = program
        self.config = config
        self._runc = runc
        self.version: Version | None = None

    async def find(self) -> None:
        """Learn the version, and write the configuration."""
        self.version = await asyncio.to_thread(read_version, self.program)
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text("\n".join(_SETTINGS) + "\n")

    @property
    def lacking(self) -> str | None:
        """Why there is nothing to work with; None when there is."""
        if self.version is None:
            return "criu is not installed: run bastide prepare"
        if not self.version.enough:
            return f"criu {self.version.text} is too old, {FLOOR} is needed: run bastide prepare"
        return None

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            Unsupported: says why.
        """
        if self.lacking:
            raise Unsupported(f"snapshots are not possible on this node: {self.lacking}")

    async def dump(self, machine: str, images: Path, work: Path) -> None:
        """Write the memory of a frozen container to `images`; it stays frozen.

        Raises:
            Conflict: of what runs in it; the text says what to stop.
            BootFailed, NoSpace: it cannot be captured; the container is as before.
        """
        places = ("--image-path", images, "--work-path", work)
        command = ("checkpoint", "--leave-running", *_COMMON, *places, machine)
        if not await self._run(command, work):
            reason, advice = _reason(work, "dump")
            if _FULL in reason or _full(images):
                raise NoSpace(
                    "the host has no room for the memory: delete workspaces or snapshots, or add "
                    "storage"
                )
            text = f"the memory cannot be captured: {reason}"
            raise Conflict(f"{text} ({advice})") if advice else BootFailed(text)

    async def restore(
        self, machine: str, bundle: Path, images: Path, stdin: int, output: int
    ) -> None:
        """Bring a container back from `images`; returns when its processes run.

        `stdin` and `output` take the place of the pipes its first process was started with. The
        process's id is in `bundle/init.pid`, logs are in `bundle`.

        Raises:
            BootFailed: it does not come back.
        """
        pid_file = bundle / "init.pid"
        pid_file.unlink(missing_ok=True)
        places = ("--image-path", images, "--work-path", bundle, "--bundle", bundle)
        command = ("restore", "--detach", "--pid-file", pid_file, *_COMMON, *places, machine)
        if not await self._run(command, bundle, stdin, output):
            reason, _ = _reason(bundle, "restore")
            raise BootFailed(f"the memory cannot be restored: {reason}")

    async def _run(
        self,
        command: tuple[str | Path, ...],
        logs: Path,
        stdin: int = asyncio.subprocess.DEVNULL,
        output: int = asyncio.subprocess.DEVNULL,
    ) -> bool:
        """Run runc with criu in reach, in a process group that ends with it; whether it worked."""
        path = f"{self.program.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        process = await asyncio.create_subprocess_exec(
            self._runc.program, "--root", self._runc.root, "--log", logs / "runc.log", *command,
            stdin=stdin, stdout=output, stderr=output,
            env={**os.environ, "PATH": path}, start_new_session=True,
        )  # fmt: skip
        try:
            return await asyncio.wait_for(process.wait(), _DEADLINE) == 0
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
            if isinstance(error, TimeoutError):
                raise BootFailed(f"runc {command[0]} did not end in {_DEADLINE:.0f} s") from None
            raise


def _full(place: Path) -> bool:
    """Whether nothing more fits there, so that not even the reason could be written down."""
    try:
        return shutil.disk_usage(place).free < _MOST_LOG
    except OSError:
        return False


def _reason(logs: Path, what: str) -> tuple[str, str]:
    """The last error criu wrote, else what runc says; and what its owner may do about it."""
    log = logs / f"{what}.log"
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _MOST_LOG))
            text = file.read().decode(errors="replace")
    except OSError:
        return last_error(logs / "runc.log"), ""
    errors = [
        match.strip()
        for match in re.findall(r"Error \([^)]*\): (.*)", text)
        if "RLIMIT" not in match and "FAILED" not in match and "failed with" not in match
    ]
    if not errors:
        return last_error(logs / "runc.log"), ""
    return errors[-1][:300], next((say for word, say in _ADVICE.items() if word in errors[-1]), "")
