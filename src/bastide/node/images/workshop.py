"""Having images: pulled from registries, built from recipes, read from archives."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog

from bastide.domain.image import ImageRecipe, ImageWords
from bastide.domain.machine import ImageInfo, ImageOrigin, ImageRequest, RegistryAuth
from bastide.domain.reference import Reference, looks_like_one
from bastide.node.errors import ImageRefused, ImageUnavailable, NoSpace, RegistryUnavailable
from bastide.node.images import jobs
from bastide.node.images.assembly import Job
from bastide.node.images.blobs import Blobs
from bastide.node.images.documents import Configuration, Descriptor, Manifest, read
from bastide.node.images.images import Images
from bastide.node.images.logins import Logins
from bastide.node.images.passage import Passage
from bastide.node.images.registry import Registry
from bastide.node.images.work import Tell, Work
from bastide.settings import Settings

MIB = 1024 * 1024
_ASSEMBLY, _BUILD = "bastide.node.images.assembly", "bastide.prepare"
_ARCHIVE = "archive.tar"
_AT_ONCE = 2
"""Images unpacked and packed at the same time: it takes a core each."""
_DOWNLOADS = 3
"""Layers of one image fetched at the same time."""
_LOOK_FOR_ROOM = 64 * MIB
"""Bytes fetched between two looks at how full the disk is."""
_FROM_ONE = 3
"""Images fetched from one registry at the same time: a slow one holds up itself alone."""
_log = structlog.get_logger(__name__)


class Workshop:
    """Makes what is asked for unless it is there; the same thing once, whoever asks."""

    def __init__(self, settings: Settings, images: Images) -> None:
        self._settings = settings.images
        self._state_dir = settings.state_dir.resolve()
        self.images = images
        self.blobs = Blobs(images.directory / "blobs")
        self.logins = Logins(self._state_dir / "registries.json")
        self._passage = Passage(settings.images)
        self._works: dict[str, Work] = {}
        self._making = asyncio.Semaphore(_AT_ONCE)
        self._hosts: dict[str, asyncio.Semaphore] = {}

    async def have(self, wanted: ImageRequest) -> AsyncIterator[str | ImageInfo]:
        """Have an image: lines of progress, then what is known of it.

        Raises:
            Invalid, ImageNotFound, ImageDenied, ImageRefused, ImageUnavailable, NoSpace,
            RegistryUnavailable: it cannot be had.
        """
        words = self.images.catalogued(wanted.reference)
        if words is None:
            if not looks_like_one(wanted.reference):
                raise self.images.unknown(wanted.reference)
            async for line in self._pull(wanted):
                yield line
            return
        if isinstance(words, ImageRecipe):
            work = self._work(f"recipe {words.id}", lambda tell: self._build(words, tell))
            async for message in work.follow():
                yield message
        yield self._info(words.id)

    async def _pull(self, wanted: ImageRequest) -> AsyncIterator[str | ImageInfo]:
        """Ask the registry, also for what is there: it says who may have it, and what it is now."""
        reference = self.images.reference(wanted.reference)
        self._passage.check(reference.registry)
        known = self.images.named(reference.name)
        if known is not None and known.private:
            known = None
        if known is not None and reference.digest is not None:
            yield self._info(known.id)
            return
        auth = wanted.auth or self.logins.get(reference.registry)
        yield f"asking {reference.registry} for {reference.repository}"
        async with Registry(reference.registry, self._passage, auth) as registry:
            try:
                digest, content = await registry.manifest(reference)
            except RegistryUnavailable as error:
                if known is None:
                    raise
                _log.warning("image.offline", image=reference.name, reason=error.message)
                yield f"{error.message}; the copy of {_day(known.at)} is used"
                yield self._info(known.id)
                return
            image = digest.replace(":", "-")
            if self.images.find(image) is None:
                work = self._work(
                    image, lambda tell: self._fetch(reference, auth, digest, content, tell)
                )
                async for message in work.follow():
                    yield message
                if wanted.auth is not None:
                    await asyncio.to_thread(self.images.mark_private, image)
        private = wanted.auth is not None
        await asyncio.to_thread(self.images.call, image, reference.name, private=private)
        yield self._info(image)

    def _work(self, key: str, make: Callable[[Tell], Awaitable[str]]) -> Work:
        """The work on something, begun now unless it is going on."""
        self._works = {name: work for name, work in self._works.items() if not work.done}
        if key not in self._works:
            self._works[key] = Work(make)
        return self._works[key]

    async def _fetch(
        self,
        reference: Reference,
        auth: RegistryAuth | None,
        digest: str,
        content: bytes,
        tell: Tell,
    ) -> str:
        """Have the layers of a manifest, and make an image of them; its id."""
        began = time.monotonic()
        manifest = read(Manifest, content, "manifest")
        manifest.check()
        total = sum(layer.size for layer in manifest.layers)
        if total > self._settings.max_unpacked_mb * MIB:
            raise ImageRefused("the image is larger than images.max_unpacked_mb allows")
        await asyncio.to_thread(self._check_room, total)
        host = self._hosts.setdefault(reference.registry, asyncio.Semaphore(_FROM_ONE))
        async with host:
            try:
                async with (
                    asyncio.timeout(self._settings.pull_timeout),
                    Registry(reference.registry, self._passage, auth) as registry,
                ):
                    config = await registry.small(reference.repository, manifest.config)
                    read(Configuration, config, "configuration").checked()
                    await asyncio.to_thread(self.blobs.keep, config, manifest.config.digest)
                    await self._layers(registry, reference, manifest.layers, tell)
            except TimeoutError:
                raise RegistryUnavailable(
                    f"{reference.registry} took more than {self._settings.pull_timeout:.0f} s"
                ) from None
        await asyncio.to_thread(self.blobs.keep, content, digest)
        image = await self._assemble(tell, manifest=digest, origin=ImageOrigin.PULL)
        seconds = round(time.monotonic() - began, 1)
        _log.info("image.pulled", image=reference.name, digest=digest, seconds=seconds)
        return image

    async def _layers(
        self,
        registry: Registry,
        reference: Reference,
        layers: tuple[Descriptor, ...],
        tell: Tell,
    ) -> None:
        """Fetch what is not there yet; another image may be fetching the same."""
        wanted = {layer.digest: layer for layer in layers}
        total = sum(layer.size for layer in wanted.values())
        have = looked = 0
        slots = asyncio.Semaphore(_DOWNLOADS)

        def more(size: int) -> None:
            nonlocal have, looked
            have += size
            if have - looked >= _LOOK_FOR_ROOM:  # others fetch at the same time
                looked = have
                self._check_room(0)
            tell(f"fetching {reference.repository}: {have / MIB:.1f} of {total / MIB:.1f} MiB")

        async def one(layer: Descriptor) -> None:
            async with slots, self.blobs.lock(layer.digest):
                if await asyncio.to_thread(self.blobs.has, layer.digest, layer.size):
                    more(layer.size)
                else:
                    await registry.fetch(reference.repository, layer, self.blobs, more)

        more(0)
        tasks = [asyncio.ensure_future(one(layer)) for layer in wanted.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def receive(self, stream: AsyncIterator[bytes]) -> Path:
        """Write an archive that somebody sends to a place of its own, for `bring_in`.

        Raises:
            ImageRefused: it is too large.
            NoSpace: the disk is full.
        """
        place = await jobs.make_scratch(self.images.directory)
        try:
            await self._save(stream, place / _ARCHIVE)
        except BaseException:
            await asyncio.shield(jobs.remove_scratch(place))
            raise
        return place

    async def _save(self, stream: AsyncIterator[bytes], archive: Path) -> None:
        size, looked = 0, 0
        try:
            file = await asyncio.to_thread(archive.open, "xb")
            with file:
                async for chunk in stream:
                    size += len(chunk)
                    if size > self._settings.max_unpacked_mb * MIB:
                        raise ImageRefused(
                            "the archive is larger than images.max_unpacked_mb allows"
                        )
                    if size - looked > 16 * MIB:
                        looked = size
                        await asyncio.to_thread(self._check_room, 0)
                    await asyncio.to_thread(file.write, chunk)
        except OSError as error:
            raise NoSpace(f"the archive cannot be written: {error.strerror}") from error

    async def bring_in(self, place: Path, words: ImageWords) -> AsyncIterator[str | ImageInfo]:
        """Make an image of the OCI archive that was received, and put it into the catalogue.

        Raises:
            ImageRefused: it is none, or too large.
            NoSpace: the disk is full.
        """
        try:
            work = self._work(
                f"archive {place.name}",
                lambda tell: self._assemble(
                    tell, archive=place / _ARCHIVE, origin=ImageOrigin.IMPORT, words=words
                ),
            )
            async for message in work.follow():
                yield message
            image = await work.result()
        finally:
            await asyncio.shield(jobs.remove_scratch(place))
        await asyncio.to_thread(self.images.unname, words.id, image)
        yield self._info(image)

    async def _assemble(
        self,
        tell: Tell,
        *,
        origin: ImageOrigin,
        manifest: str | None = None,
        archive: Path | None = None,
        words: ImageWords | None = None,
    ) -> str:
        settings = self._settings
        async with self._making, jobs.scratch(self.images.directory) as place:
            job = Job(
                home=self.images.directory,
                scratch=place,
                blobs=self.blobs.directory,
                max_bytes=settings.max_unpacked_mb * MIB,
                max_entries=settings.max_entries,
                reserve=settings.reserve_mb * MIB,
                manifest=manifest,
                archive=archive,
                origin=origin,
                words=words,
            )
            document = job.model_dump_json().encode()
            return await jobs.run(_ASSEMBLY, (), document, tell, settings.pull_timeout)

    async def _build(self, recipe: ImageRecipe, tell: Tell) -> str:
        """Build an image of the catalogue, unless it is there as its recipe says."""
        known = self.images.find(recipe.id)
        if known is not None and known.key == recipe.key:
            return recipe.id
        async with self._making, jobs.scratch(self.images.directory) as place:
            argv = (recipe.id, str(self.images.directory), str(place))
            return await jobs.run(_BUILD, argv, b"", tell, self._settings.pull_timeout)

    def _check_room(self, size: int) -> None:
        """See that the layers have room beside the reserve, before the first is fetched."""
        self.images.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        free = shutil.disk_usage(self.images.directory).free
        if free - size < self._settings.reserve_mb * MIB:
            raise NoSpace(
                f"the disk of this server has no room for the image: {size // MIB} MiB to fetch, "
                f"{free // MIB} MiB free, of which {self._settings.reserve_mb} MiB are kept free"
            )

    def _info(self, image: str) -> ImageInfo:
        found = next(
            (one for one in self.images.list() if image in (one.id, one.source)
             or (one.source or "").replace(":", "-") == image),
            None,
        )  # fmt: skip
        if found is None:
            raise ImageUnavailable("the image was removed again at once; try again")
        return found

    @property
    def busy(self) -> bool:
        """Whether something is being made, so that layers may be in use."""
        return any(not work.done for work in self._works.values())

    async def close(self) -> None:
        """End what is going on; what was fetched stays."""
        for work in self._works.values():
            await work.stop()


def _day(at: object) -> str:
    return str(at)[:16] if at else "earlier"
