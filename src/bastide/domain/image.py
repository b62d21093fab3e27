"""Images: what one is built from (recipe), and what is known of a built one (manifest)."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict, Field

from bastide.domain.machine import ImageInfo

BUILD = 1  # raise it when the way images are built changes what is in them


class ImageWords(BaseModel):
    """What the catalogue says of one image (spec 4.16 for the words).

    `id` is what a workspace asks for, `image` the reference shown beside it. Sizes in MiB.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")
    image: str
    label: str
    desc: str
    category: str
    distribution: str
    version: str
    family: str
    minimum_disk_mb: int = 64
    minimum_memory_mb: int = 128


class ImageRecipe(ImageWords):
    """How to build one image of the catalogue from Debian's packages.

    `suite` is a Debian code name; `packages` come on top of Debian's minimal system.
    """

    family: str = "debian"
    suite: str = Field(pattern=r"^[a-z]+$")
    packages: tuple[str, ...]
    software: tuple[str, ...] = Field((), description="packages whose version is shown")

    @property
    def key(self) -> str:
        """Changes with whatever changes what is built (hex)."""
        content = f"{BUILD}\n{self.model_dump_json()}"
        return hashlib.sha256(content.encode()).hexdigest()


class ImageManifest(BaseModel):
    """One built image, `state_dir/images/ID.json`; the file itself is `DIGEST.erofs`.

    `digest` is the sha256 of the file (hex), `key` that of the recipe; `software` holds names
    with versions. An image that was not built from one of `RECIPES` brings its own `words`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    key: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int
    software: tuple[str, ...] = ()
    words: ImageWords | None = None


RECIPES: tuple[ImageRecipe, ...] = (
    ImageRecipe(
        id="debian-12",
        image="bastide/debian:12",
        label="Debian 12",
        desc="A small Debian 12 with Python 3, curl, the usual shell tools and apt.",
        category="os",
        suite="bookworm",
        packages=("ca-certificates", "curl", "iproute2", "less", "nano", "procps", "python3"),
        software=("python3", "curl", "bash", "apt"),
        distribution="debian",
        version="12",
    ),
)


def recipe(reference: str) -> ImageRecipe | None:
    """The recipe named by a catalogue id or an image reference."""
    return next((item for item in RECIPES if reference in (item.id, item.image)), None)


def describe(item: ImageWords, manifest: ImageManifest | None, error: str | None) -> ImageInfo:
    """What is told of an image, built or not."""
    return ImageInfo(
        id=item.id,
        image=item.image,
        label=item.label,
        desc=item.desc,
        category=item.category,
        ready=manifest is not None and error is None,
        digest=manifest.digest if manifest else None,
        size_bytes=manifest.size_bytes if manifest else None,
        minimum_disk_mb=item.minimum_disk_mb,
        minimum_memory_mb=item.minimum_memory_mb,
        software=manifest.software if manifest else (),
        family=item.family,
        distribution=item.distribution,
        version=item.version,
        error=error,
    )
