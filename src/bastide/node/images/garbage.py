"""Images and layers that nobody uses: kept up to a limit, the longest unused go first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from bastide.domain.image import ImageManifest
from bastide.domain.machine import ImageOrigin
from bastide.node.errors import ImageInUse, Invalid, NotFound
from bastide.node.images.workshop import MIB, Workshop

FRESH = 600.0
"""Seconds after its last use in which nothing is collected: a machine may be about to be made."""
STALE = 3600.0
"""Seconds after which a file that nothing speaks of is nobody's."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Collected:
    """What a collection removed: bytes, images, layers."""

    bytes: int = 0
    images: int = 0
    layers: int = 0


@dataclass(frozen=True)
class _Item:
    """Something that may go: an image by its digest, or else a file."""

    used_at: float
    size: int
    file: Path
    digest: str | None = None


class Garbage:
    """Collects what the workshop has made; `used` are the digests machines and snapshots need."""

    def __init__(self, workshop: Workshop, used: Callable[[], set[str]], cache_mb: int) -> None:
        self._workshop = workshop
        self._images = workshop.images
        self._used = used
        self._limit = cache_mb * MIB

    async def collect(self, *, everything: bool = False) -> Collected:
        """Remove the longest unused until the rest is within the limit; or all of it."""
        limit, fresh = (0, 0.0) if everything else (self._limit, FRESH)
        items = sorted(await asyncio.to_thread(self._items), key=lambda item: item.used_at)
        left = sum(item.size for item in items)
        stale = await asyncio.to_thread(self._strays)
        freed = images = layers = 0
        for item in [*stale, *items]:
            of_limit = item not in stale
            if of_limit and left <= limit:
                break
            if time.time() - item.used_at < (fresh if of_limit else STALE):
                continue
            size = await self._remove(item)
            freed += size
            images += size > 0 and item.digest is not None
            layers += size > 0 and item.digest is None
            left -= item.size if of_limit else 0
        if freed:
            _log.info("image.collected", bytes=freed, images=images, layers=layers)
        return Collected(freed, images, layers)

    async def remove(self, name: str) -> Collected:
        """Remove one image, by its id or a reference, though the limit is not reached.

        Raises:
            NotFound: there is none.
            ImageInUse: a machine or a snapshot needs it.
        """
        manifest = await asyncio.to_thread(self._find, name)
        if manifest is None:
            raise NotFound(f"there is no image {name!r} on this host: bastide image list --all")
        if manifest.digest in self._used():
            raise ImageInUse(
                f"the image {name} is used by a workspace or a snapshot: delete those first"
            )
        self._images.condemn(manifest.digest)
        size = await asyncio.to_thread(self._images.remove, manifest.digest)
        return Collected(size, 1)

    def _find(self, name: str) -> ImageManifest | None:
        manifests = self._images.manifests()
        words = self._images.catalogued(name, manifests)
        found = self._images.manifest_of(words.id, manifests) if words is not None else None
        if found is None:
            found = next((one for one in manifests if name in (one.id, one.key)), None)
        if found is None:
            with suppress(Invalid):
                found = self._images.named(self._images.name(name), manifests)
        return found

    def _items(self) -> list[_Item]:
        """Images that can be had again and nobody uses, and layers."""
        used = self._used()
        default = self._images.recipes[0].id if self._images.recipes else ""
        found = [
            _item(self._images.file(one.digest), one.digest)
            for one in self._images.manifests()
            if one.digest not in used and one.origin is not ImageOrigin.IMPORT
            and one.id != default and (one.words is None)
        ]  # fmt: skip
        if not self._workshop.busy:
            found += [_item(path) for path in self._workshop.blobs.directory.glob("*")]
        return [item for item in found if item is not None]

    def _strays(self) -> list[_Item]:
        """Files of images that were built anew since, and that no machine needs any more."""
        known = {one.digest for one in self._images.manifests()} | self._used()
        found = [
            _item(path, path.stem)
            for path in self._images.directory.glob("[0-9a-f]*.erofs")
            if path.stem not in known
        ]
        return [item for item in found if item is not None]

    async def _remove(self, item: _Item) -> int:
        if item.digest is None:
            if self._workshop.busy:
                return 0
            await asyncio.to_thread(item.file.unlink, missing_ok=True)
            return item.size
        # Asked and condemned with nothing in between: no machine can be made of it meanwhile.
        if item.digest in self._used():
            return 0
        self._images.condemn(item.digest)
        return await asyncio.to_thread(self._images.remove, item.digest)


def _item(file: Path, digest: str | None = None) -> _Item | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return _Item(found.st_mtime, found.st_size, file, digest)
