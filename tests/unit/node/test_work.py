"""Work on an image that several wait for."""

from __future__ import annotations

import asyncio

import pytest

from bastide.node.images.work import Tell, Work


async def test_a_silent_step_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line comes again while nothing changes, so that listeners know it goes on."""
    monkeypatch.setattr("bastide.node.images.work.MOST_OFTEN", 0)
    monkeypatch.setattr("bastide.node.images.work.PULSE", 0.01)
    enough = asyncio.Event()

    async def silent(tell: Tell) -> str:
        tell("unpacking")
        await enough.wait()
        return "made"

    work, told = Work(silent), []
    async with asyncio.timeout(30):
        async for line in work.follow():
            told.append(line)
            if told.count("unpacking") == 3:
                enough.set()
    assert await work.result() == "made"
    assert told[-3:] == ["unpacking"] * 3
