"""The gate: the node learns who waits, and lets it pass."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from bastide.node.errors import BootFailed
from bastide.node.machines.gate import Gate


async def run(hook: dict[str, object], text: str = "") -> asyncio.subprocess.Process:
    """Run a hook as the runtime does: its arguments are the whole argv."""
    arguments = hook["args"]
    assert isinstance(arguments, list)
    process = await asyncio.create_subprocess_exec(
        str(hook["path"]), *arguments[1:], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()
    return process


async def test_the_runtime_waits_until_it_may_pass(tmp_path: Path) -> None:
    """The first hook tells the process, the second ends only once it is let pass."""
    gate = Gate(tmp_path)
    gate.open()
    try:
        tell, wait = gate.hooks()["prestart"]
        telling = await run(tell, json.dumps({"id": "x", "pid": 4711, "bundle": "y" * 9000}))
        async with asyncio.timeout(20):
            assert await gate.reached() == 4711
            assert await telling.wait() == 0
            waiting = await run(wait)
            assert waiting.returncode is None
            gate.let_pass()
            assert await waiting.wait() == 0
    finally:
        gate.close()
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_it_may_be_passed_before_anybody_waits(tmp_path: Path) -> None:
    """Let pass first, the hook that comes later does not wait."""
    gate = Gate(tmp_path)
    gate.open()
    try:
        gate.let_pass()
        async with asyncio.timeout(20):
            assert await (await run(gate.hooks()["prestart"][1])).wait() == 0
    finally:
        gate.close()
        gate.close()


async def test_nonsense_without_end_is_refused(tmp_path: Path) -> None:
    """What is no state is not read for ever."""
    gate = Gate(tmp_path)
    gate.open()
    try:
        telling = await run(gate.hooks()["prestart"][0], "x" * 300_000)
        async with asyncio.timeout(20):
            with pytest.raises(BootFailed, match="without end"):
                await gate.reached()
        telling.kill()
        await telling.wait()
    finally:
        gate.close()
