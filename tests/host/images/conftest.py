"""A workshop of images in a directory of its own, and a registry it may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.host.images.registry import Registry, serving

from bastide.domain.machine import ImageInfo, ImageRequest, RegistryAuth
from bastide.node.images import Images
from bastide.node.images.workshop import Workshop
from bastide.settings import Images as ImageSettings
from bastide.settings import Settings


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once."""
    monkeypatch.setattr("bastide.node.images.registry.PAUSE", 0.01)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without TLS and login."""
    with serving(tmp_path_factory.mktemp("registry") / "plain") as running:
        yield running


class Bench:
    """A workshop, and what it said."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        chosen = {"registries": (), "reserve_mb": 0, "max_unpacked_mb": 64} | settings
        self.settings = Settings(state_dir=directory, images=ImageSettings(**chosen))
        self.images = Images(directory / "images")
        self.images.directory.mkdir(parents=True)
        self.workshop = Workshop(self.settings, self.images)
        self.said: list[str] = []

    async def pull(self, reference: str, auth: RegistryAuth | None = None) -> ImageInfo:
        """Have an image."""
        return await self.follow(self.workshop.have(ImageRequest(reference=reference, auth=auth)))

    async def follow(self, lines: AsyncIterator[str | ImageInfo]) -> ImageInfo:
        """The end of a stream of progress."""
        found: ImageInfo | None = None
        async for line in lines:
            if isinstance(line, str):
                self.said.append(line)
            else:
                found = line
        assert found is not None
        return found

    def root(self, image: ImageInfo) -> Path:
        """The image, mounted."""
        assert image.digest is not None
        return self.images.mount(image.digest)

    def left(self) -> set[str]:
        """What is in the directory that is no finished image and no layer."""
        names = {path.name for path in self.images.directory.iterdir()}
        return {name for name in names if name.startswith(("build-", "."))} | {
            path.name for path in self.workshop.blobs.directory.glob("*.part")
        }


MakeBench = Callable[..., Bench]


@pytest.fixture
async def make_bench(tmp_path: Path, registry: Registry) -> AsyncIterator[MakeBench]:
    """Makes workshops that may ask the registry; what they mounted is unmounted."""
    made: list[Bench] = []

    def make(directory: Path | None = None, **settings: Any) -> Bench:
        settings = {"insecure_registries": (registry.address,)} | settings
        made.append(Bench(directory or tmp_path / f"state{len(made)}", **settings))
        return made[-1]

    yield make
    for bench in made:
        await bench.workshop.close()
        bench.images.unmount()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """One workshop."""
    return make_bench()
