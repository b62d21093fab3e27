"""Which saved guests are kept, and for whom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from bastide.node.errors import BootFailed
from bastide.node.machines.microvm import memory
from bastide.node.machines.microvm.ground import Shape
from bastide.node.machines.microvm.qemu import Accelerator
from bastide.node.machines.microvm.qmp import Qmp
from bastide.node.machines.microvm.warm import Warm

SHAPE = Shape(qemu="q", kernel="k", accelerator=Accelerator.TCG, cpus=1, memory_mb=128)


class Told:
    """Stands in for the machine protocol of an emulator: remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def run(self, command: str, **_: Any) -> dict[str, Any]:
        self.asked.append(command)
        return {}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """An emulator that saves at once."""

    async def save(qmp: Told, directory: Path) -> None:
        await qmp.run("save")
        (directory / memory.FILE).write_bytes(b"memory")

    monkeypatch.setattr(memory, "save", save)
    return Told()


def other(**changes: object) -> Shape:
    return SHAPE.model_copy(update=changes)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_only_what_is_alike_is_shared(tmp_path: Path) -> None:
    """Kernel, emulator, cores, memory, image and agent count; shares of a core do not."""
    warm = Warm(tmp_path, 4)
    keys = {
        warm.key(SHAPE, "image", "agent"),
        warm.key(other(kernel="other"), "image", "agent"),
        warm.key(other(qemu="other"), "image", "agent"),
        warm.key(other(accelerator=Accelerator.KVM), "image", "agent"),
        warm.key(other(cpus=2), "image", "agent"),
        warm.key(other(memory_mb=256), "image", "agent"),
        warm.key(SHAPE, "other", "agent"),
        warm.key(SHAPE, "image", "other"),
    }
    assert len(keys) == 8
    assert warm.key(other(cpus=0.5), "image", "agent") == warm.key(SHAPE, "image", "agent")


async def test_a_guest_is_saved_standing_still_and_goes_on(tmp_path: Path, told: Told) -> None:
    """What was saved is found from then on, by its owner alone."""
    warm = Warm(tmp_path / "warm", 4)
    assert warm.wanted("key")
    await warm.save("key", cast("Qmp", told))
    assert told.asked == ["stop", "save", "cont"]
    found = warm.find("key")
    assert found is not None
    assert (found / memory.FILE).read_bytes() == b"memory"
    assert (tmp_path / "warm").stat().st_mode & 0o077 == 0
    warm.forget("key")
    assert warm.find("key") is None


async def test_one_that_is_being_saved_is_not_saved_again(tmp_path: Path, told: Told) -> None:
    """Nobody else begins it meanwhile; another one can be made beside it."""
    warm = Warm(tmp_path, 4)
    seen: list[tuple[bool, bool]] = []

    async def run(command: str) -> None:
        seen.append((warm.wanted("key"), warm.wanted("other")))

    told.run = run  # type: ignore[method-assign, assignment]
    await warm.save("key", cast("Qmp", told))
    assert set(seen) == {(False, True)}
    assert warm.wanted("key")


async def test_a_guest_that_cannot_be_saved_goes_on(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of the attempt, and the next machine may try."""

    async def fail(*_: object) -> None:
        raise BootFailed("no room")

    monkeypatch.setattr(memory, "save", fail)
    warm = Warm(tmp_path, 4)
    await warm.save("key", cast("Qmp", told))
    assert told.asked[-1] == "cont"
    assert names(tmp_path) == set()
    assert warm.wanted("key")


async def test_the_least_used_go_first(tmp_path: Path, told: Told) -> None:
    """No more than so many are kept."""
    warm = Warm(tmp_path, 2)
    for number, key in enumerate(("first", "second")):
        await warm.save(key, cast("Qmp", told))
        os.utime(tmp_path / key, (number, number))
    assert warm.find("first") is not None  # used now
    await warm.save("third", cast("Qmp", told))
    assert names(tmp_path) == {"first", "third"}


async def test_none_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    """Zero switches it off, for those that are there too."""
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / memory.FILE).touch()
    warm = Warm(tmp_path, 0)
    assert warm.find("key") is None
    assert not warm.wanted("key")


def test_an_interrupted_save_is_swept(tmp_path: Path) -> None:
    """What a node that died has left goes, and what it had finished stays."""
    for name in (".draft-x", "key"):
        (tmp_path / name).mkdir()
    Warm(tmp_path, 4).sweep()
    Warm(tmp_path / "none", 4).sweep()
    assert names(tmp_path) == {"key"}
