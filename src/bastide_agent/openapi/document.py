"""The whole document from its parts."""

from __future__ import annotations

import json
import os
from typing import Any

PARTS = ("files", "transfer", "search", "exec", "live", "proxy", "info")


def read_document() -> dict[str, Any]:
    """Read the parts and put them together."""
    whole = _read("base")
    for name in PARTS:
        part = _read(name)
        whole["paths"].update(part["paths"])
        whole["components"]["schemas"].update(part.get("components", {}).get("schemas", {}))
    return whole


def _read(name: str) -> dict[str, Any]:
    folder = os.path.dirname(__file__)  # noqa: PTH120  (pathlib is dear to import)
    with open(f"{folder}/{name}.json", "rb") as file:  # noqa: PTH123
        part: dict[str, Any] = json.load(file)
    return part
