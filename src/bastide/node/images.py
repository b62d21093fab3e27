"""Images of this node: which are built, and each mounted once, read-only, for all machines."""

from __future__ import annotations

import threading
from pathlib import Path

from bastide.domain.image import RECIPES, ImageManifest, ImageRecipe, ImageWords, describe
from bastide.domain.machine import ImageInfo
from bastide.node import kernel, loop
from bastide.node.errors import ImageUnavailable, Invalid
from bastide.node.layout import check_image
from bastide.node.mounts import is_mounted

_FLAGS = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV


class Images:
    """The images below `directory`: `ID.json`, `DIGEST.erofs`, `mnt/DIGEST`.

    A machine keeps the digest it was made with: its disk only fits on that very image, also
    after the catalogue's image was built anew.
    """

    def __init__(self, directory: Path, recipes: tuple[ImageRecipe, ...] = RECIPES) -> None:
        # the kernel lists mounts by their true path; one that is not recognised is stacked
        self.directory = directory.resolve()
        self.recipes = recipes
        self._mounting = threading.Lock()
        self._mounted: set[str] = set()
        self._refused: dict[str, str] = {}

    def list(self) -> list[ImageInfo]:
        """Every image of the catalogue, built or not, and those that bring their own words."""
        found = []
        for item in self._known():
            manifest = self._manifest(item.id)
            error = self._refused.get(manifest.digest) if manifest else "it is not built yet"
            found.append(describe(item, manifest, error))
        return found

    def digest(self, reference: str) -> str:
        """The digest of the image a catalogue id or reference names now.

        Raises:
            Invalid: there is no such image.
            ImageUnavailable: it is not built.
        """
        known = self._known()
        item = next((one for one in known if reference in (one.id, one.image)), None)
        if item is None:
            names = ", ".join(one.id for one in known)
            raise Invalid(f"there is no image {reference!r}: known are {names}", field="image")
        manifest = self._manifest(item.id)
        if manifest is None:
            raise ImageUnavailable(f"the image {item.id} is not built on this host: run script/up")
        return manifest.digest

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
        file = self.directory / f"{digest}.erofs"
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

    def _known(self) -> tuple[ImageWords, ...]:
        """What can be asked for: the recipes, then the images that bring their own words."""
        taken = {item.id for item in self.recipes}
        names = sorted(path.stem for path in self.directory.glob("[a-z0-9]*.json"))
        manifests = (self._manifest(name) for name in names if name not in taken)
        return (
            *self.recipes,
            *(
                found.words
                for found in manifests
                if found is not None and found.words is not None and found.words.id == found.id
            ),
        )

    def _manifest(self, image: str) -> ImageManifest | None:
        try:
            text = (self.directory / f"{image}.json").read_text()
            manifest = ImageManifest.model_validate_json(text)
        except (OSError, ValueError):
            return None
        return manifest if (self.directory / f"{manifest.digest}.erofs").is_file() else None
