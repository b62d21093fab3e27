"""The one place that knows runc's command line.

Every call is an argv list; none waits for the container's own processes. runc's reasons are read
from its error output, which is bounded.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from pathlib import Path

from bastide.node import spawn
from bastide.node.errors import BootFailed, NotReady
from bastide.node.machines.version import ProgramVersion, words

FLOOR = "1.3.6"  # CVE-2025-31133, -52565, -52881, CVE-2026-41579
CURRENT = "current"
_MOST_OUTPUT = 16 * 1024
_TIMEOUT = 30.0


class Version(ProgramVersion):
    """The version of a runc."""

    @property
    def safe(self) -> bool:
        """At or above the floor."""
        return self.at_least(FLOOR)


def read_version(*command: Path | str) -> Version | None:
    """What a runc says of itself, or None when it is not there or does not start. Blocks."""
    return parse_version(words(*command) or "")


def parse_version(output: str) -> Version | None:
    """The version in runc's own words (`runc version 1.3.6+ds1`).

    A pre-release counts as older than its release, for its fixes may be missing.
    """
    match = re.match(r"runc version ((\d+)\.(\d+)\.(\d+)(\S*))", output)
    if not match:
        return None
    text, major, minor, patch, rest = match.groups()
    numbers = (int(major), int(minor), int(patch))
    if re.match(r"[-~](rc|alpha|beta)", rest):
        numbers = (*numbers[:2], numbers[2] - 1)
    return Version(text, numbers)


class Runc:
    """runc of this node, with its state under `root`."""

    def __init__(self, program: Path, root: Path) -> None:
        self.program = program
        self.root = root
        self.version: Version | None = None

    async def find(self) -> None:
        """Learn the version; without this nothing is started."""
        self.version = await asyncio.to_thread(read_version, self.program)
        self.root.mkdir(mode=0o711, parents=True, exist_ok=True)

    def describe(self) -> str:
        """The runtime in words, for capabilities."""
        if self.version is None:
            return f"missing ({self.program})"
        if not self.version.safe:
            return f"runc {self.version.text} (too old: {FLOOR} or newer is needed)"
        return f"runc {self.version.text}"

    def check(self) -> None:
        """Refuse to go on with a runtime that is missing or below the floor.

        Raises:
            NotReady: says which.
        """
        if self.version is None or not self.version.safe:
            raise NotReady(
                f"the container runtime is {self.describe()}: run script/up to install runc {FLOOR}"
            )

    async def create(
        self, machine: str, bundle: Path, stdin: int, output: int, *further: int
    ) -> int:
        """Make the container, its first process waiting; that process's id on the host.

        `stdin` and `output` become the container's standard streams, `further` its descriptors
        from 3 on.

        Raises:
            BootFailed: runc refused.
        """
        pid_file = bundle / "init.pid"
        pid_file.unlink(missing_ok=True)
        log = bundle / "runc.log"
        log.unlink(missing_ok=True)
        # Its errors go to a log of its own: the container's output would mix with them.
        command = (
            self.program, "--root", self.root, "--log", log, "create", "--bundle", bundle,
            "--pid-file", pid_file, "--preserve-fds", str(len(further)), machine,
        )  # fmt: skip
        try:
            streams = (stdin, output, output, *further)
            code = await spawn.run(command, streams, seconds=_TIMEOUT)
        except TimeoutError:
            raise BootFailed(f"runc create did not end in {_TIMEOUT:.0f} s") from None
        if code != 0:
            raise BootFailed(f"the container cannot be created: {last_error(log)}")
        return int(pid_file.read_text())

    async def start(self, machine: str) -> None:
        """Let the first process of a created container go.

        Raises:
            BootFailed: runc refused.
        """
        await self._run("start", machine)

    async def update(
        self, machine: str, *, memory: int, swap: bool, quota: int, period: int, cores: str
    ) -> None:
        """Set the limits of a running container: bytes, and microseconds of each period.

        `swap`: memory and swap together are bounded to the same, as at the boot. `cores`: those it
        is held to from now on; empty: as before.

        Raises:
            BootFailed: the kernel refuses.
        """
        await self._run(
            "update", "--memory", str(memory), *(("--memory-swap", str(memory)) if swap else ()),
            "--cpu-quota", str(quota), "--cpu-period", str(period),
            *(("--cpuset-cpus", cores) if cores else ()), machine,
        )  # fmt: skip

    async def delete(self, machine: str) -> None:
        """Remove the state and cgroups of a container, killing what is left of it."""
        if not (self.root / machine).exists():
            return
        with suppress(BootFailed):
            await self._run("delete", machine)  # quick when its first process is gone
            return
        await self._run("delete", "--force", machine)

    async def status(self, machine: str) -> str | None:
        """`created`, `running`, `paused` or `stopped`; None when runc does not know it."""
        if not (self.root / machine).exists():
            return None
        try:
            document = json.loads(await self._run("state", machine))
        except (BootFailed, ValueError):
            return None
        return str(document.get("status"))

    def known(self) -> list[str]:
        """Ids of the containers runc keeps state of."""
        return [path.name for path in self.root.iterdir()] if self.root.is_dir() else []

    async def _run(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            self.program, "--root", self.root, *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            output, errors = await asyncio.wait_for(process.communicate(), _TIMEOUT)
        except BaseException as error:
            with suppress(ProcessLookupError):
                process.kill()
            if isinstance(error, TimeoutError):
                raise BootFailed(f"runc {arguments[0]} did not end in {_TIMEOUT:.0f} s") from None
            raise
        if process.returncode != 0:
            reason = errors[-_MOST_OUTPUT:].decode(errors="replace").strip()
            raise BootFailed(f"runc {arguments[0]} failed: {reason}")
        return output.decode(errors="replace")


def last_error(log: Path) -> str:
    """The last error in a log of runc (its text form, one line per message)."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _MOST_OUTPUT))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "runc gave no reason"
    match = re.search(r'msg="((?:[^"\\]|\\.)*)"', lines[-1]) if lines else None
    return match.group(1).replace('\\"', '"') if match else "\n".join(lines[-3:])
