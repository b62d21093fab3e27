"""Archives that are imported, recipes that are built, and what is collected again."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.host.images.conftest import Bench, MakeBench
from tests.host.images.made import Image, entry, layer, small
from tests.host.images.registry import Registry
from tests.host.node.waiting import until

from bastide.domain.image import ImageWords
from bastide.domain.machine import ImageInfo, ImageOrigin
from bastide.node.errors import ImageInUse, ImageRefused, Interrupted, Invalid, NotFound
from bastide.node.images.garbage import Garbage

pytestmark = pytest.mark.host

OLD = 1_000_000_000


def words(name: str) -> ImageWords:
    """What the catalogue is to say of an imported image."""
    return ImageWords(
        id=name, image=f"imported/{name}", label=name, desc="", category="devtools",
        distribution="", version="", family="oci",
    )  # fmt: skip


async def bring(bench: Bench, content: bytes, name: str) -> ImageInfo:
    """Import an archive as the node's socket does."""

    async def stream() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 65536):
            yield content[at : at + 65536]

    place = await bench.workshop.receive(stream())
    return await bench.follow(bench.workshop.bring_in(place, words(name)))


async def test_an_archive_is_imported(bench: Bench) -> None:
    """It is in the catalogue by its name; a newer one takes the name, the older stays usable."""
    first = await bring(bench, small("one").archive, "mine")
    assert (first.id, first.origin, first.ready) == ("mine", ImageOrigin.IMPORT, True)
    assert bench.images.digest("mine") == bench.images.digest("imported/mine") == first.digest
    same = await bring(bench, gzip.compress(small("one").archive), "mine")
    assert same.digest == first.digest
    second = await bring(bench, small("two").archive, "mine")
    assert bench.images.digest("mine") == second.digest != first.digest
    assert (bench.root(first) / "etc/greeting").read_text() == "one"
    assert [one.id for one in bench.images.list() if one.origin is ImageOrigin.IMPORT][:1] == [
        "mine"
    ]
    assert bench.left() == set()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no archive at all" * 100, "no archive"),
        (layer([entry("manifest.json", b"[]")]), "no OCI archive"),
        (layer([entry("index.json", b"{}")]), "index is broken"),
        (small().archive[:4000], "cut off|missing|no archive|no OCI"),
        (layer([entry("blobs/sha256/" + "0" * 64, b"x")]), "is not sha256:0000"),
    ],
)
async def test_an_archive_that_is_none_is_told(bench: Bench, content: bytes, words: str) -> None:
    """It says why, and leaves nothing."""
    with pytest.raises(ImageRefused, match=words):
        await bring(bench, content, "mine")
    assert not list(bench.images.directory.glob("*.json"))
    assert bench.left() == set()


async def test_an_import_ends_with_the_node(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing ends it as it ends a pull: whoever waits is told, and nothing is left."""
    began = asyncio.Event()

    async def endless(*args: object, **settings: object) -> str:
        began.set()
        await asyncio.Event().wait()
        return ""

    monkeypatch.setattr(bench.workshop, "_assemble", endless)
    bringing = asyncio.ensure_future(bring(bench, small().archive, "mine"))
    async with asyncio.timeout(60):
        await began.wait()
        await until(lambda: bench.workshop.busy)
        await bench.workshop.close()
        with pytest.raises(Interrupted):
            await bringing
    assert not bench.workshop.busy
    assert bench.left() == set()


async def test_busybox_is_built_from_the_packages(bench: Bench) -> None:
    """Asked for by two at once it is built once, and then it is there."""
    found = await asyncio.gather(bench.pull("busybox"), bench.pull("bastide/busybox:1.35"))
    assert found[0] == found[1]
    assert found[0].ready
    root = bench.root(found[0])
    assert (root / "bin/sh").readlink() == Path("/bin/busybox")
    assert found[0].software[0].startswith("busybox-static 1.")
    assert (await bench.pull("busybox")).digest == found[0].digest
    assert bench.left() == set()


async def test_garbage_is_collected_by_age(make_bench: MakeBench, registry: Registry) -> None:
    """Above the limit the longest unused goes; never what is used, imported, or fresh."""
    bench = make_bench()
    used: set[str] = set()
    garbage = Garbage(bench.workshop, lambda: used, cache_mb=1)
    names = {}
    for number in range(4):
        content = layer([entry("data", os.urandom(600_000))])
        Image([content]).push(registry.base, f"gc/{number}", "1")
        found = await bench.pull(f"{registry.address}/gc/{number}:1")
        assert found.digest is not None
        names[number] = found.digest
        bench.root(found)
    imported = await bring(bench, small().archive, "mine")
    files = bench.images.directory
    assert await garbage.collect() == await garbage.collect()  # all of it is fresh
    assert len(list(files.glob("*.erofs"))) == 5
    for path in bench.workshop.blobs.directory.iterdir():
        os.utime(path, (OLD, OLD))
    for number, digest in names.items():
        os.utime(files / f"{digest}.erofs", (OLD + 100 + number, OLD + 100 + number))
    os.utime(files / f"{imported.digest}.erofs", (OLD, OLD))
    used.add(names[0])
    await garbage.collect()
    left = {path.stem for path in files.glob("*.erofs")}
    assert left == {names[0], names[3], imported.digest}
    assert not list(bench.workshop.blobs.directory.iterdir())
    with pytest.raises(ImageInUse):
        await garbage.remove(f"{registry.address}/gc/0:1")
    assert (await garbage.collect(everything=True)).images == 1
    assert {path.stem for path in files.glob("*.erofs")} == {names[0], imported.digest}
    assert (await garbage.remove("mine")).images == 1
    with pytest.raises(NotFound):
        await garbage.remove("mine")
    with pytest.raises(Invalid):
        bench.images.digest("mine")
    again = await bench.pull(f"{registry.address}/gc/3:1")
    assert again.ready
    assert {path.name for path in (files / "mnt").iterdir()} == {names[0]}


async def test_files_of_images_that_were_replaced_go(bench: Bench) -> None:
    """A file nobody speaks of is removed once it is old and no machine uses it."""
    used = {"b" * 64}
    for name in ("a", "b", "c"):
        (bench.images.directory / f"{name * 64}.erofs").write_bytes(b"x")
    for name in ("a", "b"):
        os.utime(bench.images.directory / f"{name * 64}.erofs", (OLD, OLD))
    garbage = Garbage(bench.workshop, lambda: used, cache_mb=1000)
    await garbage.collect()
    assert {path.stem[0] for path in bench.images.directory.glob("*.erofs")} == {"b", "c"}
