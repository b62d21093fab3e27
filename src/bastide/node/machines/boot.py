"""The first seconds of a machine: its boot document, its output until READY, and the clock."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bastide.domain.machine import CONTROL_PORT, PROGRAMS_GRACE, RUNTIME_PORT, MachineSpec
from bastide.node.errors import BootFailed

MOST_OUTPUT = 64 * 1024
MOST_DOCUMENT = 1024 * 1024 - 4096
"""Bytes of a boot document, as the agent reads it, less room for id and token."""
_READY = re.compile(rb"(?:^|\n)READY\r?\n")
_SHOWN_LINES = 20
_SHOWN_BYTES = 4096


class Clock:
    """Milliseconds per stage of one boot, and in total."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] = _milliseconds(begin)

    def timings(self) -> dict[str, float]:
        """All stages so far, and `total`."""
        return {**self._stages, "total": _milliseconds(self._begin)}


def boot_document(spec: MachineSpec, boot_id: str, token: str, *, seed: str | None = None) -> bytes:
    """What the agent is told on its standard input (docs/architecture.md). Holds secrets.

    `seed` (hex) is for the random pool of a machine with a kernel of its own.
    """
    document: dict[str, Any] = {
        "boot_id": boot_id,
        "hostname": spec.hostname,
        "control": {"port": CONTROL_PORT, "token": token},
        "runtime": {
            "port": RUNTIME_PORT,
            "enabled": spec.runtime.enabled,
            "token": spec.runtime.token,
        },
        "ssh": spec.ssh.model_dump(mode="json"),
        "env": spec.env,
        "cmd": list(spec.cmd) if spec.cmd is not None else None,
        "workdir": spec.workdir or "/root",
        "user": spec.user,
        "grace": PROGRAMS_GRACE,
    }
    if seed is not None:
        document["seed"] = seed
    return json.dumps(document).encode()


async def send(descriptor: int, document: bytes) -> None:
    """Write the boot document and close; a reader that went away is somebody else's news."""
    rest = memoryview(document)
    os.set_blocking(descriptor, False)
    try:
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                await _writable(descriptor)
    except BrokenPipeError:
        return
    finally:
        os.close(descriptor)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)


class Output:
    """What a machine prints until it is ready, bounded."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "rb", buffering=0)
        self.data = b""

    def close(self) -> None:
        """Let go of the pipe; what the machine prints from now on is lost."""
        self._pipe.close()

    async def until_ready(self) -> None:
        """Read until the line READY, then let go of the pipe.

        Raises:
            BootFailed: it ended, or printed more than the bound, without being ready.
        """
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MOST_OUTPUT)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._pipe
        )
        try:
            while not _READY.search(self.data):
                if len(self.data) >= MOST_OUTPUT:
                    raise BootFailed(
                        f"the machine printed {MOST_OUTPUT // 1024} KiB without becoming ready",
                        output=self.shown(),
                    )
                chunk = await reader.read(MOST_OUTPUT - len(self.data))
                if not chunk:
                    raise BootFailed(
                        "the machine ended before it was ready" + self._quoted(),
                        output=self.shown(),
                    )
                self.data += chunk
        finally:
            transport.close()

    def shown(self) -> str:
        """The last lines, fit to be shown."""
        return shown(self.data)

    def _quoted(self) -> str:
        return f": {self.shown()}" if self.data.strip() else " and printed nothing"


def shown(output: bytes) -> str:
    """The last lines of what a machine printed, without control characters."""
    text = output[-_SHOWN_BYTES:].decode(errors="replace")
    lines = ["".join(c if c.isprintable() else " " for c in line) for line in text.splitlines()]
    return "\n".join(lines[-_SHOWN_LINES:])


def _milliseconds(begin: float) -> float:
    return round((time.perf_counter() - begin) * 1000, 2)
