"""Which cores a machine gets, and the files that tell programs inside its size."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from bastide.node.cgroups import Usage
from bastide.node.machines.cores import Cores, listed, parsed
from bastide.node.machines.dimensions import Dimensions, cpuinfo, meminfo, stat

MIB = 2**20


@pytest.mark.parametrize(
    ("cores", "text"), [((0,), "0"), ((0, 1, 2, 5), "0-2,5"), ((3, 1), "1,3"), ((6, 7), "6-7")]
)
def test_cores_are_written_as_the_kernel_does(cores: tuple[int, ...], text: str) -> None:
    """Ranges and single cores, and back."""
    assert listed(cores) == text
    assert parsed(f"{text}\n") == tuple(sorted(cores))


def test_machines_are_spread_over_the_cores() -> None:
    """Fractions are rounded up, and the least shared cores are given first."""
    cores = Cores(range(4))
    given = [cores.take(f"m{number}", 0.5 if number % 2 else 1.0) for number in range(8)]
    assert {len(one) for one in given} == {1}
    assert set(Counter(core for one in given for core in one).values()) == {2}
    cores.leave("m0")
    assert cores.take("new", 1.5) != cores.take("other", 1.5)


def test_who_may_use_all_cores_is_held_to_none() -> None:
    """As many processors as the host has, or more, are all cores, and take nobody's place."""
    cores = Cores([0, 1])
    assert cores.take("whole", 2.0) == cores.take("more", 32.0) == (0, 1)
    assert cores.take("one", 1.0) == (0,)
    assert cores.of("whole") == (0, 1)


def test_a_change_keeps_what_it_can() -> None:
    """Growing and shrinking stays on the cores a machine has; an earlier node's choice counts."""
    cores = Cores(range(8))
    cores.hold("old", (6,))
    assert cores.of("old") == (6,)
    assert 6 in cores.take("old", 2.0)
    assert len(cores.take("old", 1.0)) == 1
    assert cores.take("old", 8.0) == tuple(range(8))


def fields(text: str) -> dict[str, int]:
    """The lines of a meminfo, in KiB."""
    found = re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)
    return {name: int(value) for name, value in found}


def test_memory_is_the_machines_own() -> None:
    """Total is the limit, what the kernel can drop is available, and there is no swap."""
    told = fields(meminfo(512 * MIB, Usage(0.0, 100 * MIB, 3, cache_bytes=50 * MIB)))
    assert told["MemTotal"] == 512 * 1024
    assert told["MemFree"] == 362 * 1024
    assert told["MemAvailable"] == 412 * 1024
    assert told["Cached"] == 50 * 1024
    assert told["SwapTotal"] == 0


def test_memory_never_goes_below_nothing() -> None:
    """Counters that were read apart from another cannot give impossible figures."""
    told = fields(meminfo(128 * MIB, Usage(0.0, 200 * MIB, 3, cache_bytes=90 * MIB)))
    assert min(told.values()) == 0
    assert told["MemAvailable"] == 0


def test_only_its_cores_are_listed() -> None:
    """Blocks of other cores are left out; what belongs to no core stays."""
    host = "processor\t: 0\nmodel\t: x\n\nprocessor\t: 1\nmodel\t: x\n\nprocessor\t: 10\n\n"
    assert re.findall(r"processor\s*: (\d+)", cpuinfo(host, (1,))) == ["1"]


def test_times_keep_their_length() -> None:
    """A reader of an older length meets whole lines: newer times take the same room."""
    early, late = stat((0, 3), 0.0, 1.0, 1_700_000_000), stat((0, 3), 9e6, 9e7, 1_700_000_000)
    assert len(early) == len(late)
    rows = [line.split() for line in late.splitlines() if line.startswith("cpu")]
    assert [row[0] for row in rows] == ["cpu", "cpu0", "cpu3"]
    assert int(rows[0][1]) == int(rows[1][1]) + int(rows[2][1])
    assert "btime 1700000000" in late


def test_files_are_changed_in_place(tmp_path: Path) -> None:
    """What was bound inside goes on telling the truth: the files stay the same ones."""
    dimensions = Dimensions(tmp_path)
    dimensions.write(256 * MIB, (0,))
    before = {file: file.stat().st_ino for file in dimensions.binds.values()}
    sizes = {file: file.stat().st_size for file in dimensions.binds.values()}
    dimensions.refresh(256 * MIB, (0,), Usage(5.0, 64 * MIB, 3), 60.0)
    assert {file: file.stat().st_size for file in before} == sizes
    dimensions.write(512 * MIB, (0, 1))
    assert {file: file.stat().st_ino for file in before} == before
    assert (tmp_path / "sys.online").read_text() == "0-1\n"
    assert fields((tmp_path / "proc.meminfo").read_text())["MemTotal"] == 512 * 1024
