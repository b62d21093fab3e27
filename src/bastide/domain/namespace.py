"""Namespaces: what a tenant's workspaces and credentials are kept together by (spec 2)."""

from __future__ import annotations

import re

PATTERN = r"[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?"
_NAMESPACE = re.compile(PATTERN, re.ASCII)


def check_namespace(value: str) -> str:
    """The namespace itself, if it can be one.

    Raises:
        ValueError: wrong shape.
    """
    if not _NAMESPACE.fullmatch(value):
        raise ValueError(
            "must be 1 to 128 lower-case letters, digits and hyphens, with no hyphen at either end"
        )
    return value
