"""Images made by hand: layers from lists of entries, pushed to a registry or put in an archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from bastide.node.images.documents import architecture

OCI = "application/vnd.oci.image"


def digest(content: bytes) -> str:
    """As registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def entry(name: str, content: bytes | str | None = None, **changes: Any) -> tuple[Any, bytes]:
    """An entry: bytes make a file, text a symbolic link, None a directory."""
    info = tarfile.TarInfo(name)
    info.mtime = 1_000_000_000
    if content is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif isinstance(content, str):
        info.type, info.linkname = tarfile.SYMTYPE, content
    else:
        info.mode, info.size = 0o644, len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content if isinstance(content, bytes) else b""


def layer(entries: Iterable[tuple[Any, bytes]]) -> bytes:
    """A tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@dataclass
class Image:
    """Tar archives as layers, and the inner configuration; `pressed` is none, gzip or zstd."""

    layers: list[bytes]
    config: dict[str, Any] = field(default_factory=dict)
    pressed: str = "gzip"
    architecture: str = field(default_factory=architecture)
    diff_ids: list[str] | None = None
    _pressed: dict[str, bytes] = field(default_factory=dict)

    @property
    def blobs(self) -> dict[str, bytes]:
        """Every blob but the manifest."""
        packed = [self._press(one) for one in self.layers]
        return {digest(one): one for one in (self.configuration, *packed)}

    @property
    def configuration(self) -> bytes:
        """The configuration's document."""
        ids = self.diff_ids or [digest(one) for one in self.layers]
        return json.dumps(
            {
                "architecture": self.architecture,
                "os": "linux",
                "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": ids},
            }
        ).encode()

    @property
    def manifest(self) -> bytes:
        """The manifest's document."""
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": self._described(self.configuration, f"{OCI}.config.v1+json"),
                "layers": [
                    self._described(self._press(one), f"{OCI}.layer.v1.tar{self._suffix}")
                    for one in self.layers
                ],
            }
        ).encode()

    @property
    def archive(self) -> bytes:
        """An OCI archive of it."""
        described = self._described(self.manifest, f"{OCI}.manifest.v1+json")
        index = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
        blobs = {**self.blobs, digest(self.manifest): self.manifest}
        names = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index}
        names |= {f"blobs/sha256/{key[7:]}": content for key, content in blobs.items()}
        return layer(entry(name, content) for name, content in names.items())

    def push(self, base: str, repository: str, tag: str, **how: Any) -> str:
        """Put it into a registry, `how` as httpx takes it; the manifest's digest."""
        with httpx.Client(base_url=f"{base}/v2/{repository}", timeout=60, **how) as client:
            for key, content in self.blobs.items():
                begun = client.post("/blobs/uploads/")
                begun.raise_for_status()
                place = httpx.URL(begun.headers["location"]).copy_merge_params({"digest": key})
                client.put(place, content=content).raise_for_status()
            kind = {"Content-Type": f"{OCI}.manifest.v1+json"}
            done = client.put(f"/manifests/{tag}", content=self.manifest, headers=kind)
            done.raise_for_status()
        return digest(self.manifest)

    @property
    def _suffix(self) -> str:
        return f"+{self.pressed}" if self.pressed else ""

    def _press(self, content: bytes) -> bytes:
        key = digest(content)
        if key not in self._pressed:
            self._pressed[key] = self._really_press(content)
        return self._pressed[key]

    def _really_press(self, content: bytes) -> bytes:
        if self.pressed == "gzip":
            return gzip.compress(content, 1, mtime=0)
        if self.pressed == "zstd":
            done = subprocess.run(["zstd", "-1q"], input=content, capture_output=True, check=True)
            return done.stdout
        return content

    def _described(self, content: bytes, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": digest(content), "size": len(content)}


def small(text: str = "hello\n", **config: Any) -> Image:
    """An image with one file."""
    return Image([layer([entry("etc"), entry("etc/greeting", text.encode())])], config)
