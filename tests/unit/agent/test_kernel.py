"""What the agent asks of a kernel of its own."""

from __future__ import annotations

import fcntl
import os
import struct
import time

import pytest

from bastide_agent import kernel
from bastide_agent.boot import Boot, BootError

TOKEN = {"control": {"token": "c" * 32}}


def test_a_seed_is_credited_and_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is given the bytes with all their bits, and then draws its keys anew."""
    asked: list[tuple[int, object]] = []
    monkeypatch.setattr(fcntl, "ioctl", lambda _, code, data=None: asked.append((code, data)))
    kernel.reseed(b"s" * 64)
    assert asked == [(0x40085203, struct.pack("ii", 512, 64) + b"s" * 64), (0x5207, None)]


def test_a_shared_kernel_may_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the privilege nothing happens, and nothing fails."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    monkeypatch.setattr(time, "clock_settime_ns", refuse)
    kernel.reseed(os.urandom(16))
    kernel.set_clock(1)


@pytest.mark.parametrize("wrong", ["zz", 5, ["00"], "00" * 600])
def test_a_wrong_seed_is_told(wrong: object) -> None:
    """A document whose seed is no hex, or too long, is refused."""
    with pytest.raises(BootError, match="seed"):
        Boot({**TOKEN, "seed": wrong})


def test_a_document_needs_no_seed() -> None:
    """A machine that shares its kernel gets none."""
    assert Boot(TOKEN).seed == b""
    assert Boot({**TOKEN, "seed": "00ff"}).seed == b"\x00\xff"
