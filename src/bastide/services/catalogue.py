"""What the engine offers: images and capabilities, remembered for some seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from bastide.domain.errors import FeatureUnavailable, ValidationFailed
from bastide.domain.lease import TtlAction
from bastide.domain.machine import Capabilities, Driver, ImageInfo
from bastide.engine.contract import Engine, EngineUnavailable
from bastide.services.failures import engine_failures

FRESH = 10.0
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

    async def get(self, *, fresh: bool = False) -> _T:
        asked = time.monotonic()
        async with self._asking:
            # Whoever waited here while another asked takes that answer.
            since = asked if fresh else time.monotonic() - FRESH
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

    def __init__(self, engine: Engine) -> None:
        self._images = _Remembered(engine.images)
        self._capabilities = _Remembered(engine.capabilities)

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

        Raises:
            ValidationFailed: there is none, or it cannot be booted.
            VmUnavailable: the engine cannot be asked and never was.
        """
        name = wanted or DEFAULT_IMAGE
        with engine_failures():
            images = await self._images.get()
            if _pick(images, name) is None or not _ready(images, name):
                images = await self._images.get(fresh=True)
        found = _pick(images, name)
        if found is None:
            known = ", ".join(sorted(image.id for image in images)) or "none yet"
            raise ValidationFailed(
                "image", f"There is no image {name!r} here. The images are: {known}."
            )
        if not found.ready:
            raise ValidationFailed(
                "image",
                f"The image {found.id!r} is not ready on this server: "
                f"{found.error or 'it is still being built'}. Choose another or try again later.",
            )
        return found

    async def search(
        self, text: str | None, category: str | None
    ) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """Images and categories as the API shows them (spec 4.16).

        Args:
            text: every word of it must occur in id, label, description, reference or contents.
            category: an id of a category, or `all`.
        """
        with engine_failures():
            images = await self._images.get()
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


def _ready(images: list[ImageInfo], name: str) -> bool:
    found = _pick(images, name)
    return found is not None and found.ready


def _text(image: ImageInfo) -> str:
    """Everything a search looks at."""
    parts = (image.id, image.image, image.label, image.desc, image.category, image.family)
    return " ".join((*parts, image.distribution, image.version, *image.software)).lower()


def _shape(image: ImageInfo) -> dict[str, Any]:
    """One image on the wire."""
    return {
        "id": image.id,
        "image": image.image,
        "label": image.label,
        "desc": image.desc,
        "category": image.category,
        "logo": None,
        "color": None,
        "capabilities": [],
        "desktop": {"supported": False},
        "vm_defaults": None,
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
        "error": image.error,
        "digest": image.digest,
        "size_bytes": image.size_bytes,
    }
