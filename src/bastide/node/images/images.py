"""Images of this node: which are there, and each mounted once, read-only, for all machines."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from bastide.domain.image import (
    RECIPES,
    ImageConfig,
    ImageManifest,
    ImageRecipe,
    ImageWords,
    describe,
    words_of,
)
from bastide.domain.machine import ImageInfo, ImageOrigin, MachineSpec
from bastide.domain.reference import DOCKER_HUB, Reference, looks_like_one, unknown_image
from bastide.node import kernel, loop
from bastide.node.errors import ImageUnavailable, Invalid
from bastide.node.images.packing import read_manifest, write_manifest
from bastide.node.layout import check_image
from bastide.node.mounts import is_mounted

_FLAGS = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV


class Images:
    """The images below `directory`: `ID.json`, `DIGEST.erofs`, `mnt/DIGEST`.

    A machine keeps the digest it was made with: its disk only fits on that very image, also
    after the catalogue's image was built anew. When an image was last used is the time of its
    file.
    """

    def __init__(
        self,
        directory: Path,
        recipes: tuple[ImageRecipe, ...] = RECIPES,
        default_registry: str = DOCKER_HUB,
    ) -> None:
        # the kernel lists mounts by their true path; one that is not recognised is stacked
        self.directory = directory.resolve()
        self.recipes = recipes
        self.default_registry = default_registry
        self._mounting = threading.Lock()
        self._mounted: set[str] = set()
        self._refused: dict[str, str] = {}
        self._going: set[str] = set()
        self._configs: dict[str, ImageConfig | None] = {}
        self._naming = threading.Lock()

    def list(self) -> list[ImageInfo]:
        """The catalogue, built or not; then what was imported; then what was pulled."""
        manifests = self.manifests()
        found = []
        for item in self._known(manifests):
            manifest = self.manifest_of(item.id, manifests)
            found.append(self._describe(item, manifest))
        found += [
            self._describe(words_of(one), one)
            for one in manifests
            if one.words is None and one.origin is not ImageOrigin.RECIPE
        ]
        return found

    def _describe(self, item: ImageWords, manifest: ImageManifest | None) -> ImageInfo:
        if manifest is None:
            return describe(item, None, "it is not built yet")
        error = self._refused.get(manifest.digest)
        return describe(item, manifest, error, last_used=self.last_used(manifest.digest))

    def digest(self, reference: str) -> str:
        """The digest of the image a catalogue id or reference names now; it counts as used.

        Raises:
            Invalid: there is no such image.
            ImageUnavailable: it is not there yet; it can be built or pulled.
        """
        manifests = self.manifests()
        item = self.catalogued(reference, manifests)
        if item is not None:
            manifest = self.manifest_of(item.id, manifests)
            if manifest is None:
                raise ImageUnavailable(
                    f"the image {item.id} is not built on this host: "
                    f"bastide image build {item.id} (script/up builds the default one)"
                )
        else:
            manifest = self._pulled(reference, manifests)
            if manifest is None:
                raise self.unknown(reference, manifests)
        with self._mounting:
            if manifest.digest in self._going:
                raise ImageUnavailable(f"the image {reference} is just being removed")
            self.touch(manifest.digest)
        return manifest.digest

    def _pulled(self, text: str, manifests: Collection[ImageManifest]) -> ImageManifest | None:
        """What a reference last led to.

        Raises:
            ImageUnavailable: nothing yet.
        """
        if not looks_like_one(text):
            return None
        name = self.name(text)
        found = self.named(name, manifests)
        if found is None:
            raise ImageUnavailable(f"the image {name} is not on this host: bastide image pull it")
        return found

    def unknown(self, text: str, manifests: Collection[ImageManifest] | None = None) -> Invalid:
        """The refusal of a bare word that the catalogue does not have."""
        known = self._known(self.manifests() if manifests is None else manifests)
        return Invalid(unknown_image(text, (one.id for one in known)), field="image")

    def name(self, text: str) -> str:
        """A reference in full. Raises Invalid."""
        return self.reference(text).name

    def reference(self, text: str) -> Reference:
        """A reference as it was written. Raises Invalid."""
        try:
            return Reference.parse(text, self.default_registry)
        except ValueError as error:
            raise Invalid(f"{text!r} is no image: {error}", field="image") from None

    def named(
        self, name: str, manifests: Collection[ImageManifest] | None = None
    ) -> ImageManifest | None:
        """The image a reference in full last led to."""
        among = self.manifests() if manifests is None else manifests
        return next((one for one in among if name in one.names), None)

    def catalogued(
        self, text: str, manifests: Collection[ImageManifest] | None = None
    ) -> ImageWords | None:
        """The words of what a text names in the catalogue: a recipe, or an imported image."""
        known = self._known(self.manifests() if manifests is None else manifests)
        return next((one for one in known if text in (one.id, one.image)), None)

    def manifest_of(self, item: str, manifests: Collection[ImageManifest]) -> ImageManifest | None:
        """What is there of an entry of the catalogue."""
        recipes = {one.id for one in self.recipes}
        for one in manifests:
            if one.id == item and one.origin is ImageOrigin.RECIPE:
                return one
            if item not in recipes and one.words is not None and one.words.id == item:
                return one
        return None

    def find(self, image: str) -> ImageManifest | None:
        """The image of that id, if it is there."""
        return read_manifest(self.directory, image)

    def call(self, image: str, name: str, *, private: bool) -> None:
        """Note that a reference leads to this image now, and to no other any more. Blocks.

        What one was given without credentials is open, whoever asked for it first.
        """
        with self._naming:
            for manifest in self.manifests():
                names, mine = set(manifest.names), manifest.id == image
                wanted = names | {name} if mine else names - {name}
                closed = manifest.private and (not mine or private)
                if wanted != names or closed != manifest.private:
                    changed = {"names": tuple(sorted(wanted)), "private": closed}
                    write_manifest(self.directory, manifest.model_copy(update=changed))

    def mark_private(self, image: str) -> None:
        """Note that an image came with somebody's own credentials. Blocks."""
        with self._naming:
            manifest = self.find(image)
            if manifest is not None:
                write_manifest(self.directory, manifest.model_copy(update={"private": True}))

    def unname(self, words: str, but: str) -> None:
        """Take the catalogue's words from every imported image but one. Blocks."""
        with self._naming:
            for manifest in self.manifests():
                if manifest.words is not None and manifest.words.id == words and manifest.id != but:
                    write_manifest(self.directory, manifest.model_copy(update={"words": None}))

    def furnish(self, spec: MachineSpec, digest: str) -> MachineSpec:
        """A machine's document with what its image says where the document says nothing."""
        config = self._config(digest)
        if config is None:
            return spec
        return spec.model_copy(
            update={
                "env": {**config.env, **spec.env},
                "cmd": spec.cmd if spec.cmd is not None else config.service,
                "workdir": spec.workdir or config.workdir,
                "user": spec.user or config.user,
            }
        )

    def _config(self, digest: str) -> ImageConfig | None:
        if digest not in self._configs:
            for manifest in self.manifests():
                # kept for those without one too: their manifests are not read at each boot
                if manifest.config is not None or manifest.digest not in self._configs:
                    self._configs[manifest.digest] = manifest.config
        return self._configs.get(digest)

    def mount(self, digest: str) -> Path:
        """The mounted image of a digest, mounted now if it was not. Blocks.

        Raises:
            ImageUnavailable: its file is gone, unreadable, or its layout is refused.
        """
        point = self.directory / "mnt" / digest
        with self._mounting:
            if digest in self._refused:
                raise ImageUnavailable(self._refused[digest])
            if digest in self._mounted:
                return point
            if not is_mounted(point):
                self._mount(digest, point)
            try:
                check_image(point)
            except ImageUnavailable as error:
                self._refused[digest] = error.message
                kernel.unmount_all(point)
                raise
            self._mounted.add(digest)
        return point

    def _mount(self, digest: str, point: Path) -> None:
        file = self.file(digest)
        # 0711: the first process of a container passes through on its way to its root
        point.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            kernel.mount(file, point, "erofs", _FLAGS)  # from Linux 6.12 on, needs no loop device
        except OSError:
            try:
                with loop.attached(file, read_only=True) as device:
                    kernel.mount(device, point, "erofs", _FLAGS)
            except OSError as error:
                raise ImageUnavailable(
                    f"the image {digest[:12]} cannot be mounted: {error}"
                ) from error

    def unmount(self) -> None:
        """Unmount all images; those a machine uses stay alive in it."""
        with self._mounting:
            self._mounted.clear()
            for point in (self.directory / "mnt").glob("*"):
                kernel.unmount_all(point)

    def file(self, digest: str) -> Path:
        """The file of an image."""
        return self.directory / f"{digest}.erofs"

    def last_used(self, digest: str) -> datetime | None:
        """When a machine was last made of an image; None: its file is gone."""
        try:
            return datetime.fromtimestamp(self.file(digest).stat().st_mtime, UTC)
        except OSError:
            return None

    def touch(self, digest: str) -> None:
        """Count an image as used now."""
        with suppress(OSError):
            os.utime(self.file(digest))

    def condemn(self, digest: str) -> None:
        """Let no new machine be made of an image that is about to be removed."""
        with self._mounting:
            self._going.add(digest)

    def remove(self, digest: str) -> int:
        """Remove an image that was condemned, with its file; the bytes that are free. Blocks."""
        file, point = self.file(digest), self.directory / "mnt" / digest
        with self._mounting:
            self._mounted.discard(digest)
            self._refused.pop(digest, None)
            self._configs.pop(digest, None)
        try:
            for manifest in self.manifests():
                if manifest.digest == digest:
                    (self.directory / f"{manifest.id}.json").unlink(missing_ok=True)
            kernel.unmount_all(point)
            with suppress(OSError):
                point.rmdir()
            try:
                size = file.stat().st_size
                file.unlink()
            except FileNotFoundError:
                return 0
            return size
        finally:
            with self._mounting:
                self._going.discard(digest)

    def manifests(self) -> tuple[ImageManifest, ...]:
        """Everything that is there."""
        names = sorted(path.stem for path in self.directory.glob("[a-z0-9]*.json"))
        found = (read_manifest(self.directory, name) for name in names)
        return tuple(one for one in found if one is not None and one.id in names)

    def _known(self, manifests: Collection[ImageManifest]) -> tuple[ImageWords, ...]:
        """What the catalogue has: the recipes, then the images that bring their own words."""
        taken = {item.id for item in self.recipes}
        return (
            *self.recipes,
            *(
                one.words
                for one in manifests
                if one.words is not None
                and one.words.id not in taken
                and (one.words.id == one.id or one.origin is ImageOrigin.IMPORT)
            ),
        )
