"""Boot documents, boot output, versions, ranges, records: the parts without a kernel."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bastide.domain.machine import (
    MachineExit,
    MachineSpec,
    MachineState,
    Resources,
    RuntimeAccess,
)
from bastide.node.errors import BootFailed, Conflict
from bastide.node.events import Events
from bastide.node.machines.boot import MOST_OUTPUT, Output, boot_document, send, shown
from bastide.node.machines.idrange import SIZE, IdRange, free_range
from bastide.node.machines.runc import parse_version
from bastide.node.process import start_time
from bastide.node.store import BootRecord, MachineRecord, Store, read, write

SPEC = MachineSpec(
    id="ws_00000001",
    image="debian-12",
    resources=Resources(cpus=1, memory_mb=128, disk_mb=64),
    runtime=RuntimeAccess(enabled=True, token="ab" * 32),
    env={"KEY": "välue"},
    cmd=("echo", "hi"),
)


def test_the_boot_document() -> None:
    """It has exactly the shape of docs/architecture.md."""
    assert json.loads(boot_document(SPEC, "boot", "token")) == {
        "boot_id": "boot",
        "hostname": "workspace",
        "control": {"port": 9989, "token": "token"},
        "runtime": {"port": 9990, "enabled": True, "token": "ab" * 32},
        "ssh": {"enabled": False, "host_key": None, "password_hash": None, "keys": []},
        "env": {"KEY": "välue"},
        "cmd": ["echo", "hi"],
        "workdir": "/root",
        "user": None,
        "grace": 8.0,
    }
    assert json.loads(boot_document(SPEC.model_copy(update={"cmd": None}), "b", "t"))["cmd"] is None


async def test_a_large_document_is_written_as_it_is_read() -> None:
    """A document larger than a pipe arrives whole."""
    reading, writing = os.pipe()
    document = os.urandom(700_000)

    def drain() -> bytes:
        with os.fdopen(reading, "rb") as file:
            return file.read()

    got, _ = await asyncio.gather(asyncio.to_thread(drain), send(writing, document))
    assert got == document


async def test_a_reader_that_went_away_is_no_error() -> None:
    """A machine that dies before it read its document fails elsewhere."""
    reading, writing = os.pipe()
    os.close(reading)
    await send(writing, b"x" * 100_000)


async def output_of(content: bytes) -> Output:
    reading, writing = os.pipe()
    output = Output(reading)
    try:
        os.write(writing, content)
        os.close(writing)
        await output.until_ready()
    finally:
        output.close()
    return output


@pytest.mark.parametrize("content", [b"READY\n", b"a\nREADY\n", b"a\r\nREADY\r\nmore"])
async def test_ready_is_a_line_of_its_own(content: bytes) -> None:
    """READY alone on a line ends the wait, whatever was printed before."""
    assert (await output_of(content)).data.startswith(content[:1])


@pytest.mark.parametrize("content", [b"", b"READY", b"NOT READY\n", b"READY?\n", b" READY\n"])
async def test_nothing_else_is_ready(content: bytes) -> None:
    """Without that line, the end of the output is a failed boot."""
    with pytest.raises(BootFailed, match="ended before it was ready"):
        await output_of(content)


async def test_output_is_bounded() -> None:
    """The node never holds more than the bound, and says what went wrong."""
    reading, writing = os.pipe()
    output = Output(reading)
    writer = asyncio.create_task(send(writing, b"x" * (MOST_OUTPUT * 3)))
    with pytest.raises(BootFailed, match="64 KiB"):
        await output.until_ready()
    output.close()
    await writer
    assert len(output.data) == MOST_OUTPUT


def test_shown_output_is_harmless() -> None:
    """Control characters do not reach a person's terminal; only the last lines are shown."""
    assert shown(b"\x1b[31mred\x07\n\xff\n") == " [31mred \n\ufffd"
    assert len(shown(b"line\n" * 1000).splitlines()) == 20


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("1.3.6+ds1", True),
        ("1.3.6", True),
        ("1.4.3", True),
        ("2.0.0", True),
        ("1.3.5", False),
        ("1.1.5+ds1", False),
        ("1.3.6-rc.1", False),
        ("1.3.6~rc1", False),
        ("1.2.99", False),
    ],
)
def test_versions_below_the_floor_are_not_safe(text: str, safe: bool) -> None:  # noqa: FBT001
    """1.3.6 is the floor; its release candidates are below it."""
    found = parse_version(f"runc version {text}\ncommit: x\nspec: 1.2.1\n")
    assert found is not None
    assert found.text == text
    assert found.safe is safe


@pytest.mark.parametrize("text", ["", "crun version 1.8", "runc version unknown"])
def test_what_is_no_version(text: str) -> None:
    """Something else on that path is not taken for a runtime."""
    assert parse_version(text) is None


def test_ranges_never_meet() -> None:
    """The lowest free range is given, and a freed one again."""
    taken = [IdRange(1_000_000), IdRange(1_000_000 + 2 * SIZE)]
    assert free_range(1_000_000, taken) == IdRange(1_000_000 + SIZE)
    assert IdRange(7).mapping == "0 7 65536"
    with pytest.raises(Conflict):
        free_range(2**32 - SIZE, [])


def test_ranges_given_from_another_base_are_not_shared() -> None:
    """A changed `id_base` gives nobody an id that another machine has."""
    for first in (1_000_000, 1_000_000 - 1, 1_000_001, 1_000_000 + SIZE // 2):
        found = free_range(1_000_000, [IdRange(first)])
        assert found.first >= first + SIZE or found.first + SIZE <= first


def test_records_come_back(tmp_path: Path) -> None:
    """A record is read as it was saved; a directory of another name or a broken file is not."""
    store = Store(tmp_path)
    exit_ = MachineExit(at=datetime.now(UTC), code=3)
    plain = SPEC.model_copy(update={"runtime": RuntimeAccess(), "env": {}})
    record = MachineRecord(spec=plain, digest="a" * 64, first_id=1_000_000, exit=exit_)
    store.save(record)
    assert store.all() == [record]
    path = tmp_path / "machines/ws_00000001/machine.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.parent.rename(tmp_path / "machines/ws_00000002")
    assert store.all() == []
    store.remove("ws_00000002")
    store.remove("ws_00000002")
    assert list((tmp_path / "machines").iterdir()) == []


def test_a_record_is_replaced_whole(tmp_path: Path) -> None:
    """What an interrupted write left does not matter."""
    path = tmp_path / "boot.json"
    (tmp_path / ".boot.json").write_text("half")
    record = BootRecord(boot_id="b", token="t", pid=1, started=2, at=datetime.now(UTC))
    write(path, record)
    assert read(BootRecord, path) == record
    path.write_text("{")
    assert read(BootRecord, path) is None


def test_start_times_tell_processes_apart() -> None:
    """A living process has one, always the same; an id of nobody has none."""
    own = start_time(os.getpid())
    assert own is not None
    assert own == start_time(os.getpid())
    assert start_time(2**22 + 1) is None


async def test_events_reach_every_listener() -> None:
    """Each listener gets every event from its beginning on."""
    events = Events()
    streams = [events.listen(10), events.listen(10)]
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await asyncio.sleep(0)
    events.emit("ws_00000001", "created", MachineState.STOPPED)
    for future in waiting:
        event = await future
        assert event is not None
        assert event.type == "created"
    events.close()
    for stream in streams:
        assert [event async for event in stream] == []


async def test_a_slow_listener_is_let_go() -> None:
    """Whoever does not read sees the end of the stream, and the node keeps no more for them."""
    events = Events()
    stream = events.listen(10)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    for _ in range(1002):
        events.emit("ws_00000001", "created", MachineState.STOPPED)
    await first
    assert len([event async for event in stream]) == 998


async def test_silence_has_a_pulse() -> None:
    """Without events a listener still hears something."""
    stream = Events().listen(0.001)
    assert await anext(stream) is None
    await stream.aclose()  # type: ignore[attr-defined]
