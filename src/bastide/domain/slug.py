"""Slugs: the readable second name of a workspace, usable wherever its id is (spec 3.1)."""

from __future__ import annotations

import re
import secrets
import unicodedata

SHORTEST, LONGEST = 3, 128
ALLOWED = "3 to 128 lower-case letters, digits and hyphens, with no hyphen at either end"
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,126})[a-z0-9]", re.ASCII)
_RESERVED = frozenset({"quota", "estimate", "archived", "images", "usage", "activity", "workloads"})
_SUFFIX = 6


def check_slug(value: str) -> str:
    """The slug itself, if a person may choose it.

    Raises:
        ValueError: wrong shape, or a path segment of the API.
    """
    if not _SLUG.fullmatch(value):
        raise ValueError(f"must be {ALLOWED}")
    if value in _RESERVED:
        raise ValueError(f"{value!r} is a path of the API; choose another slug")
    return value


def slug_of(name: str) -> str:
    """The slug that a name suggests; it may be taken, then `vary_slug` gives another."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[: LONGEST - _SUFFIX - 1].strip("-")
    if len(slug) < SHORTEST or slug in _RESERVED:
        slug = f"workspace-{slug}".strip("-")
    return slug


def vary_slug(slug: str) -> str:
    """The same slug with a short random ending, for when the plain one is taken."""
    stem = slug[: LONGEST - _SUFFIX - 1].strip("-")
    return f"{stem}-{secrets.token_hex(_SUFFIX // 2)}"
