"""Run a command in a machine, as its root with all that restricts its processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bastide.node.machines.host import Host

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed, both streams together."""

    code: int
    output: str


async def inside(host: Host, machine: str, *argv: str, seconds: float = 30.0) -> Done:
    """Run `argv` in a running machine."""
    process = await asyncio.create_subprocess_exec(
        host.runc.program, "--root", host.runc.root, "exec", "--env", PATH, machine, *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(seconds):
        output, _ = await process.communicate()
    return Done(process.returncode or 0, output.decode(errors="replace").strip())


async def shell(host: Host, machine: str, text: str, seconds: float = 30.0) -> Done:
    """Run a line of the image's shell in a running machine."""
    return await inside(host, machine, "/bin/sh", "-c", text, seconds=seconds)
