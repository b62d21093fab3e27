"""A layer of a million files at default settings: refused, while a workspace goes on answering.

For `script/drill layers`: it takes a minute. `BASTIDE_TEST_ENTRIES` says how many.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.host.images.made import Image, entry, layer
from tests.host.images.registry import Registry, serving
from tests.host.node.conftest import spec
from tests.host.node.inside import shell

from bastide.domain.machine import ImageRequest
from bastide.node.errors import ImageRefused
from bastide.node.node import Node
from bastide.settings import Images, Settings

pytestmark = pytest.mark.host

ENTRIES = int(os.environ.get("BASTIDE_TEST_ENTRIES", "1000001"))
MACHINE = spec().id


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry without TLS and login."""
    with serving(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def settings(settings: Settings, registry: Registry) -> Settings:
    """All at its default, but for the registry that may be asked."""
    images = Images(insecure_registries=(registry.address,))
    return settings.model_copy(update={"images": images})


async def test_a_million_files_are_refused(
    node: Node, settings: Settings, registry: Registry
) -> None:
    """It says which setting, leaves nothing, and keeps nobody waiting."""
    await node.fleet.create(spec())
    await node.power.start(spec())
    await asyncio.to_thread(push, registry)
    before = {path.name for path in (settings.state_dir / "images").iterdir()}
    began, slowest, answers, peak = time.monotonic(), 0.0, 0, 0
    pulling = asyncio.create_task(pull(node, f"{registry.address}/many:1"))
    while not pulling.done():
        asked = time.monotonic()
        assert (await shell(node.host, MACHINE, "echo here")).output == "here"
        slowest, answers = max(slowest, time.monotonic() - asked), answers + 1
        peak = max(peak, memory())
    with pytest.raises(ImageRefused, match=r"images\.max_entries"):
        await pulling
    print(  # noqa: T201 - figures for whoever runs it
        f"\n{ENTRIES} entries: refused after {time.monotonic() - began:.1f} s, assembly at most "
        f"{peak // 1024} MiB; "
        f"the workspace answered {answers} times, the slowest after {slowest * 1000:.0f} ms"
    )
    left = {path.name for path in (settings.state_dir / "images").iterdir()} - before
    assert not [name for name in left if name.startswith((".", "build-")) or "json" in name]


def memory() -> int:
    """KiB that a process assembling an image has had at most."""
    found = 0
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"bastide.node.images.assembly" in (place / "cmdline").read_bytes():
                peak = re.search(r"VmHWM:\s*(\d+)", (place / "status").read_text())
                found = max(found, int(peak[1]) if peak else 0)
    return found


def push(registry: Registry) -> None:
    """Make the image, and put it into the registry."""
    made = layer(entry(f"f{number}", b"") for number in range(ENTRIES))
    Image([made]).push(registry.base, "many", "1", timeout=300)


async def pull(node: Node, reference: str) -> None:
    """Have it, or why not."""
    async for _ in node.workshop.have(ImageRequest(reference=reference)):
        pass
