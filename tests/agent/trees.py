"""A small project to list, and how to list it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx


def small_project(place: Path) -> Path:
    """Make one in an empty directory."""
    (place / "src/deep").mkdir(parents=True)
    (place / "src/app.py").write_text("print('hi')\n")
    (place / "src/deep/Main.GO").write_text("package main\n")
    (place / "src/logo.png").write_bytes(b"\x89PNG\0\xff")
    (place / "README").write_text("read me")
    (place / ".hidden").write_text("h")
    (place / "link").symlink_to("src")
    (place / "empty").mkdir()
    return place


def listing(http: httpx.Client, path: Path, **params: str | int) -> dict[str, Any]:
    """A successful list."""
    query = {key: str(value).lower() for key, value in params.items()}
    answer = http.get("/files", params={"path": str(path), **query})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["success"] is True
    return found


def names(found: dict[str, Any], base: Path) -> list[str]:
    """Paths of the entries below the listed directory."""
    return [entry["path"].removeprefix(f"{base}/") for entry in found["entries"]]
