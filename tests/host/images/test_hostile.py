"""Images that are meant to do harm, are broken, or are too large: each is told, none is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.host.images.conftest import Bench, MakeBench
from tests.host.images.made import Image, entry, layer, small
from tests.host.images.registry import Registry

from bastide.node import kernel
from bastide.node.errors import ImageRefused, NodeError, NoSpace

pytestmark = pytest.mark.host

MARK = "/tmp/bastide-must-not-be-written"  # where a layer would like to write on the host


def link(name: str, target: str) -> tuple[Any, bytes]:
    """A hard link."""
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


DEEP = "/".join("d" * 300)
HOSTILE: dict[str, tuple[Image, str]] = {
    "name above the tree": (Image([layer([entry(f"../..{MARK}", b"x")])]), "leads out"),
    "whiteout above the tree": (Image([layer([entry("a/.wh...", b"")])]), "has no name"),
    "hard link above the tree": (
        Image([layer([link("shadow", "../../../etc/shadow")])]), "leads out",
    ),
    "hard link to the host": (Image([layer([link("shadow", "/etc/shadow")])]), "cannot be applied"),
    "parent that is a link to the host": (
        Image([layer([entry("out", "/tmp"), entry(f"out/{Path(MARK).name}", b"x")])]),
        "cannot be applied",
    ),
    "etc that is a link": (Image([layer([entry("etc", "/usr/etc")])]), "/etc is a symbolic link"),
    "proc that is a file": (Image([layer([entry("proc", b"x")])]), "/proc is a file"),
    "hosts that is a directory": (Image([layer([entry("etc/hosts/")])]), "/etc/hosts is"),
    "too many entries": (
        Image([layer([entry(f"f{n}", b"") for n in range(1200)])]), "images.max_entries",
    ),
    "bomb": (Image([layer([entry("zero", bytes(20 * 2**20))])]), "images.max_unpacked_mb"),
    "header without end": (
        Image([layer([entry("x", b"", pax_headers={"comment": "y" * 2**21})])]), "header",
    ),
    "deep": (Image([layer([entry(DEEP, b"")])]), "deep"),
    "no archive": (Image([b"x" * 2000]), "tar archive"),
    "another layer than it says": (
        Image([layer([entry("a", b"a")])], diff_ids=["sha256:" + "0" * 64]), "not what",
    ),
    "fewer layers than it says": (
        Image([layer([entry("a", b"a")])], diff_ids=["sha256:" + "0" * 64] * 2), "other layers",
    ),
    "another processor": (Image([layer([])], architecture="s390x"), "s390x"),
    "command that is none": (small(Cmd=["a\x00b"]), "no process"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Nothing was written to the host."""
    yield
    assert not Path(MARK).exists()


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_image_is_refused(
    make_bench: MakeBench, registry: Registry, kind: str
) -> None:
    """It says what is wrong, and leaves neither an image nor a tree."""
    image, words = HOSTILE[kind]
    bench = make_bench(max_entries=1000, max_unpacked_mb=16)
    repository = f"hostile/{kind.replace(' ', '-')}"
    image.push(registry.base, repository, "1")
    with pytest.raises(NodeError, match=words) as told:
        await bench.pull(f"{registry.address}/{repository}:1")
    assert isinstance(told.value, ImageRefused)
    assert not list(bench.images.directory.glob("*.json"))
    assert bench.left() == set()


PLANTED = """
import sys
from pathlib import Path
from bastide.node.images.layers import inside
tree, folder = Path(sys.argv[1]), Path(sys.argv[2])
place = tree / str(folder).lstrip("/")
place.mkdir(parents=True)
(place / "colorsys.py").write_text("print('a stranger runs')")
with inside(tree):
    try:
        import colorsys
    except ModuleNotFoundError:
        print("refused")
import colorsys
print("found outside")
"""


def test_no_code_of_an_image_runs(tmp_path: Path) -> None:
    """Python's own library inside the tree is never taken for Python's."""
    library = os.path.dirname(os.__file__)  # noqa: PTH120
    argv = [sys.executable, "-c", PLANTED, str(tmp_path / "tree"), library]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\nfound outside\n"


async def test_links_stay_inside(bench: Bench, registry: Registry) -> None:
    """Links to the host's root lead to the image's own; devices are left out."""
    image = Image(
        [
            layer(
                [
                    entry("tmp/"), entry("up", ".."), entry("abs", "/"),
                    entry("chain", "/abs/up/../.."),
                    entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
                ]
            ),
            layer(
                [entry(f"{way}/tmp/{way}", b"") for way in ("abs", "up", "chain")],
            ),
        ]
    )  # fmt: skip
    image.push(registry.base, "hostile/links", "1")
    found = await bench.pull(f"{registry.address}/hostile/links:1")
    assert {path.name for path in (bench.root(found) / "tmp").iterdir()} == {"abs", "up", "chain"}
    assert found.skipped == 1


async def test_a_broken_document_is_told(bench: Bench, registry: Registry) -> None:
    """A registry may hold manifests that are none."""
    made = small()
    made.push(registry.base, "hostile/manifest", "1")
    document = json.loads(made.manifest)
    document["config"]["mediaType"] = "application/vnd.example.chart"
    async with httpx.AsyncClient(base_url=f"{registry.base}/v2/hostile/manifest") as client:
        kind = {"Content-Type": document["mediaType"]}
        done = await client.put("/manifests/chart", json=document, headers=kind)
        done.raise_for_status()
    with pytest.raises(ImageRefused, match="artifact"):
        await bench.pull(f"{registry.address}/hostile/manifest:chart")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    kernel.mount("tmpfs", place, "tmpfs", 0, "size=12m")
    yield place
    kernel.unmount_all(place)


@pytest.mark.parametrize(
    ("content", "reserve"),
    [(os.urandom(13_000_000), 0), (bytes(20_000_000), 0), (bytes(8_000_000), 6)],
    ids=["no room for the layers", "no room for the tree", "the reserve is kept"],
)
async def test_a_full_disk(
    make_bench: MakeBench, registry: Registry, small_disk: Path, content: bytes, reserve: int
) -> None:
    """It is told, the room is free again, and a smaller image still fits."""
    bench = make_bench(small_disk, reserve_mb=reserve)
    repository = f"full/{len(content)}"
    Image([layer([entry("big", content)])]).push(registry.base, repository, "1")
    with pytest.raises(NoSpace, match="disk of this server"):
        await bench.pull(f"{registry.address}/{repository}:1")
    assert bench.left() == set()
    free = os.statvfs(small_disk)
    assert free.f_bavail * free.f_frsize > 11 * 2**20
    small().push(registry.base, "full/small", "1")
    assert (await bench.pull(f"{registry.address}/full/small:1")).ready
    bench.images.unmount()
