"""A tree packed into one read-only file, with the manifest that names it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bastide.domain.image import ImageConfig, ImageManifest, ImageWords
from bastide.domain.machine import ImageOrigin
from bastide.node.errors import ImageUnavailable, NoSpace
from bastide.node.layout import check_image

_SECONDS = 1800
_FULL = "No space left"


def read_manifest(home: Path, image: str) -> ImageManifest | None:
    """What is known of an image, or None when it is not there (or its file is gone)."""
    try:
        manifest = ImageManifest.model_validate_json((home / f"{image}.json").read_text())
    except (OSError, ValueError):
        return None
    return manifest if (home / f"{manifest.digest}.erofs").is_file() else None


def write_manifest(home: Path, manifest: ImageManifest) -> None:
    """Write down what is known of an image, in one step."""
    draft = home / f".{manifest.id}.json"
    draft.write_text(manifest.model_dump_json(indent=1) + "\n")
    draft.rename(home / f"{manifest.id}.json")


def pack(
    tree: Path,
    home: Path,
    image: str,
    key: str,
    *,
    software: tuple[str, ...] = (),
    words: ImageWords | None = None,
    origin: ImageOrigin = ImageOrigin.RECIPE,
    config: ImageConfig | None = None,
    skipped: int = 0,
    scratch: Path | None = None,
) -> ImageManifest:
    """Check a tree and pack it into `home/DIGEST.erofs` with its manifest `home/IMAGE.json`.

    `words` is what the catalogue says of an image that is none of its own. `scratch` is where
    the file lies while it is written: on the same file system as `home`, which is the default.

    Raises:
        ImageUnavailable: the layout is hostile, or it cannot be packed.
        NoSpace: the disk is full.
    """
    check_image(tree)
    descriptor, name = tempfile.mkstemp(prefix=".pack-", suffix=".erofs", dir=scratch or home)
    os.close(descriptor)
    packed = Path(name)
    try:
        packed.unlink()
        _make(packed, tree)
        with packed.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        packed.chmod(0o444)
        size = packed.stat().st_size
        packed.rename(home / f"{digest}.erofs")
    except OSError as error:
        raise NoSpace(f"the image {image} cannot be written: {error.strerror}") from error
    finally:
        packed.unlink(missing_ok=True)
    manifest = ImageManifest(
        id=image,
        key=key,
        digest=digest,
        size_bytes=size,
        software=software,
        words=words,
        origin=origin,
        config=config,
        skipped=skipped,
        at=datetime.now(UTC),
    )
    write_manifest(home, manifest)
    return manifest


def _make(packed: Path, tree: Path) -> None:
    """Run mkfs.erofs."""
    try:
        done = subprocess.run(
            ["mkfs.erofs", "--quiet", "-zlz4", packed, tree],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise ImageUnavailable("mkfs.erofs is not installed: apt-get install erofs-utils") from None
    except subprocess.TimeoutExpired:
        raise ImageUnavailable(f"packing did not end within {_SECONDS} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        if _FULL in said:
            raise NoSpace("the disk of this server is too full to pack the image")
        raise ImageUnavailable(f"packing failed: {said[-400:]}")
