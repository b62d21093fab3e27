"""What the engine offers: images and capabilities, remembered for some seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from bastide.domain.errors import FeatureUnavailable, ValidationFailed
from bastide.domain.lease import TtlAction
from bastide.domain.machine import Capabilities, Driver, ImageInfo, ImageOrigin
from bastide.domain.reference import Reference, looks_like_one, unknown_image
from bastide.engine.contract import Engine, EngineUnavailable
from bastide.services.failures import engine_failures
from bastide.settings import Images

FRESH = 10.0
LISTED = 1.0
"""Seconds a list may be old: whoever has just imported an image looks for it there."""
DEFAULT_IMAGE = "debian-12"
_CATEGORIES = {
    "os": "Operating systems",
    "devtools": "Developer tools",
    "runtime": "Language runtimes",
    "ai": "AI",
    "browser": "Browsers",
    "database": "Databases",
    "infra": "Infrastructure",
}
_T = TypeVar("_T")


class _Remembered(Generic[_T]):
    """An answer, asked for again when it is old; while the engine is away the old one serves."""

    def __init__(self, ask: Callable[[], Awaitable[_T]]) -> None:
        self._ask = ask
        self._answer: _T | None = None
        self._at = 0.0
        self._asking = asyncio.Lock()

    async def get(self, *, fresh: bool = False, within: float = FRESH) -> _T:
        asked = time.monotonic()
        async with self._asking:
            # Whoever waited here while another asked takes that answer.
            since = asked if fresh else time.monotonic() - within
            if self._answer is not None and self._at >= since:
                return self._answer
            try:
                answer = await self._ask()
            except EngineUnavailable:
                if self._answer is None:
                    raise
                return self._answer
            self._answer, self._at = answer, time.monotonic()
            return answer


class Catalogue:
    """Images and capabilities of the engine."""

    def __init__(self, engine: Engine, settings: Images) -> None:
        self._engine = engine
        self._settings = settings
        self._images = _Remembered(self._catalogue)
        self._capabilities = _Remembered(engine.capabilities)

    async def _catalogue(self) -> list[ImageInfo]:
        """What anybody may choose by name; what was pulled for somebody is asked for anew."""
        images = await self._engine.images()
        return [image for image in images if image.origin is not ImageOrigin.PULL]

    async def capabilities(self) -> Capabilities:
        """What the engine can do.

        Raises:
            VmUnavailable: it cannot be asked and never was.
        """
        with engine_failures():
            return await self._capabilities.get()

    async def check_action(self, action: TtlAction | None, field: str) -> None:
        """Refuse a lease whose end the engine could not bring about.

        Raises:
            FeatureUnavailable: `pause`, on an engine without it; names `field`.
        """
        if action is TtlAction.PAUSE and not (await self.capabilities()).pause:
            raise FeatureUnavailable(
                field, 'Workspaces of this server cannot be paused; use "stop" or "remove".'
            )

    async def check_driver(self, driver: Driver | None) -> None:
        """Refuse what no machine of this server could be run by.

        Raises:
            FeatureUnavailable: names `config.driver`, and why.
        """
        if driver in {None, Driver.AUTO}:
            return
        tier = (await self.capabilities()).tier_of(driver)
        if not tier.ready:
            raise FeatureUnavailable(
                "config.driver",
                f"No {driver} can run on this server: {tier.reason or 'it gave no reason'}. "
                "Leave driver out, or send auto.",
            )

    async def resolve(self, wanted: str | None) -> ImageInfo:
        """The image of that id or reference, or the default one.

        One that is `buildable` is built or pulled when the machine is made.

        Raises:
            ValidationFailed: there can be none, or it cannot be booted.
            VmUnavailable: the engine cannot be asked and never was.
        """
        name = wanted or DEFAULT_IMAGE
        with engine_failures():
            images = await self._images.get()
            unknown = _pick(images, name) is None and not looks_like_one(name)
            if unknown or _broken(images, name):
                images = await self._images.get(fresh=True)
        found = _pick(images, name)
        if found is None and looks_like_one(name):
            return self._in_registry(name)
        if found is None:
            raise ValidationFailed("image", unknown_image(name, (image.id for image in images)))
        if not found.ready and not found.buildable:
            raise ValidationFailed(
                "image",
                f"The image {found.id!r} is not ready on this server: "
                f"{found.error or 'it is still being built'}. Choose another or try again later.",
            )
        return found

    def _in_registry(self, name: str) -> ImageInfo:
        """An image that is looked for when the machine is made.

        Raises:
            ValidationFailed: it cannot be one, or its registry is not to be asked.
        """
        try:
            reference = Reference.parse(name, self._settings.default_registry)
        except ValueError as error:
            raise ValidationFailed("image", f"{name!r} is no image: {error}.") from None
        if not self._settings.admits(reference.registry):
            raise ValidationFailed(
                "image", f"Images of this server do not come from {reference.registry}."
            )
        return _unseen(name)

    async def search(
        self, text: str | None, category: str | None
    ) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """Images and categories as the API shows them (spec 4.16).

        Args:
            text: every word of it must occur in id, label, description, reference, contents or
                keywords.
            category: an id of a category, or `all`.
        """
        with engine_failures():
            images = await self._images.get(within=LISTED)
        words = (text or "").lower().split()
        found = [
            _shape(image)
            for image in images
            if (category in {None, "", "all"} or image.category == category)
            and all(word in _text(image) for word in words)
        ]
        present = {image.category for image in images}
        categories = [
            {"id": key, "label": label} for key, label in _CATEGORIES.items() if key in present
        ]
        return found, [{"id": "all", "label": "All"}, *categories]


def _pick(images: list[ImageInfo], name: str) -> ImageInfo | None:
    return next((image for image in images if name in {image.id, image.image}), None)


def _broken(images: list[ImageInfo], name: str) -> bool:
    found = _pick(images, name)
    return found is not None and not found.ready and not found.buildable


def _unseen(name: str) -> ImageInfo:
    """What is known of an image before its registry was asked."""
    return ImageInfo(
        id=name, image=name, label=name, desc="", category="", ready=False, buildable=True,
        origin=ImageOrigin.PULL,
    )  # fmt: skip


def _text(image: ImageInfo) -> str:
    """Everything a search looks at."""
    parts = (image.id, image.image, image.label, image.desc, image.category, image.family)
    more = (image.distribution, image.version, *image.software, *image.keywords)
    return " ".join((*parts, *more)).lower()


def _defaults(image: ImageInfo) -> dict[str, Any] | None:
    """The sizes a workspace of it gets where they differ from the server's."""
    sizes = {"cpus": image.cpus, "memory_mb": image.memory_mb, "disk_size_mb": image.disk_mb}
    return {name: size for name, size in sizes.items() if size is not None} or None


def _shape(image: ImageInfo) -> dict[str, Any]:
    """One image on the wire."""
    return {
        "id": image.id,
        "image": image.image,
        "label": image.label,
        "desc": image.desc,
        "category": image.category,
        "logo": image.logo,
        "color": image.color,
        "capabilities": [],
        "desktop": {"supported": False},
        "vm_defaults": _defaults(image),
        "minimum_resources": {
            "cpus": 0.25,
            "memory_mb": image.minimum_memory_mb,
            "disk_size_mb": image.minimum_disk_mb,
        },
        "minimum_memory_mb": image.minimum_memory_mb,
        "disk_targets": [],
        "base_os": {
            "family": image.family,
            "distribution": image.distribution,
            "version": image.version,
        },
        "preset": None,
        "software": list(image.software),
        "ready": image.ready,
        "buildable": image.buildable,
        "error": image.error,
        "digest": image.digest,
        "size_bytes": image.size_bytes,
    }
