"""Programs that make images: run in processes of their own, ended when nobody waits for them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bastide.node.errors import (
    ImageRefused,
    ImageUnavailable,
    NodeError,
    NoSpace,
)

SCRATCH = "build-"
_MOST_LINE = 64 * 1024
_OLD = 6 * 3600.0
_ERRORS: dict[str, type[NodeError]] = {
    kind.code: kind for kind in (ImageRefused, ImageUnavailable, NoSpace)
}


async def run(
    module: str, argv: Sequence[str], document: bytes, tell: Callable[[str], None], seconds: float
) -> str:
    """Run one of our programs to its end; the id of the image it made.

    `document` goes to its standard input; `tell` hears each line of progress.

    Raises:
        ImageRefused, ImageUnavailable, NoSpace: what it said went wrong.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", module, *argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env={k: v for k, v in os.environ.items() if not k.startswith("BASTIDE_")},
        limit=_MOST_LINE,
        start_new_session=True,
    )
    assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 - asked for
    errors = asyncio.create_task(_tail(process.stderr))
    outcome: dict[str, str] = {}
    try:
        async with asyncio.timeout(seconds):
            with suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(document)
                await process.stdin.drain()
            process.stdin.close()
            async for line in process.stdout:
                said: dict[str, str] = json.loads(line)
                if "message" in said and "error" not in said:
                    tell(said["message"])
                else:
                    outcome = said
            await process.wait()
    except TimeoutError:
        raise ImageUnavailable(f"making the image did not end within {seconds:.0f} s") from None
    finally:
        # all it started, too; it leads their group
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
        last = await errors
    if "image" in outcome:
        return outcome["image"]
    if "error" in outcome:
        raise _ERRORS.get(outcome["error"], ImageUnavailable)(outcome.get("message", ""))
    raise ImageUnavailable(f"making the image ended with {process.returncode}: {last}")


async def _tail(stream: asyncio.StreamReader) -> str:
    """The end of what a program says about its own failure."""
    kept = b""
    while data := await stream.read(4096):
        kept = (kept + data)[-2048:]
    return kept.decode(errors="replace").strip()[-500:]


@asynccontextmanager
async def scratch(home: Path) -> AsyncIterator[Path]:
    """A closed directory beside the images for the work on one; gone at the end."""
    made = await make_scratch(home)
    try:
        yield made
    finally:
        await asyncio.shield(remove_scratch(made))


async def make_scratch(home: Path) -> Path:
    """A closed directory beside the images; whoever asked removes it."""
    return await asyncio.to_thread(_make, home)


def _make(home: Path) -> Path:
    try:
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-", dir=home))
    except OSError as error:
        raise NoSpace(f"an image cannot be written: {error.strerror}") from error


async def remove_scratch(path: Path) -> None:
    """Remove a tree; not in Python: that of a stranger may be deeper than it can follow."""
    argv = ("rm", "-rf", "--one-file-system", "--", str(path))
    removal = await asyncio.create_subprocess_exec(*argv)
    await removal.wait()


def sweep(home: Path) -> int:
    """Remove what work that was cut off has left; how many. Blocks."""
    left = [path for path in home.glob(f"{SCRATCH}*") if not _at_work(path)]
    left += [path for path in home.glob(".pack-*") if _old(path)]
    for path in left:
        # no shell, no pattern: the path is one of ours
        subprocess.run(["rm", "-rf", "--one-file-system", "--", path], check=False)
    return len(left)


def _at_work(path: Path) -> bool:
    """Whether the process that a directory is named after is still there."""
    number = path.name.split("-")[1]
    return Path(f"/proc/{number}").exists() if number.isdigit() else not _old(path)


def _old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _OLD
    except OSError:
        return False
