"""The documents of an OCI image: index, manifest, configuration. Whoever made them is a stranger.

Both the OCI's and Docker's media types are known; what they say beyond this is ignored.
"""

from __future__ import annotations

import hashlib
import platform
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bastide.domain.image import ImageConfig
from bastide.domain.text import plain_text
from bastide.node.errors import ImageRefused

INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFESTS = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
CONFIGS = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
MOST_DOCUMENT = 4 * 1024 * 1024
"""Bytes of any of them, as registries have it."""
MOST_LAYERS = 256
_MOST_WORDS = 1024
_MOST_TEXT = 64 * 1024
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DIGEST = r"^sha256:[0-9a-f]{64}$"
_FOREIGN = re.compile(r"nondistributable|foreign")
_D = TypeVar("_D", bound=BaseModel)


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Platform(_Document):
    """What a manifest of an index is for."""

    os: str = ""
    architecture: str = ""


class Descriptor(_Document):
    """A blob: its digest and its size in bytes."""

    mediaType: str = ""  # noqa: N815 - the document's name
    digest: str = Field(pattern=_DIGEST)
    size: int = Field(ge=0, le=2**40)
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Index(_Document):
    """Manifests of one image for several platforms, or those of a directory."""

    manifests: tuple[Descriptor, ...] = Field(max_length=1024)

    def fitting(self) -> Descriptor:
        """The manifest for machines of this host.

        Raises:
            ImageRefused: there is none.
        """
        here = architecture()
        for found in self.manifests:
            for_it = found.platform
            if for_it is None or (for_it.os, for_it.architecture) == ("linux", here):
                return found
        there = sorted(
            {f"{one.platform.os}/{one.platform.architecture}" for one in self.manifests
             if one.platform}
        )  # fmt: skip
        raise ImageRefused(
            f"the image is not made for linux/{here}, only for "
            f"{', '.join(there)[:200] or 'nothing'}"
        )


class Manifest(_Document):
    """One image: its configuration and its layers, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...] = Field(max_length=MOST_LAYERS)

    def check(self) -> None:
        """Refuse what is no image that can be fetched as a whole.

        Raises:
            ImageRefused: says what it is instead.
        """
        if self.config.mediaType not in CONFIGS:
            raise ImageRefused(
                f"this is no image of a system but an artifact ({self.config.mediaType[:100]})"
            )
        if any(_FOREIGN.search(layer.mediaType) for layer in self.layers):
            raise ImageRefused("some of its layers are not in the registry (foreign layers)")


class _Inner(_Document):
    Entrypoint: tuple[str, ...] | None = None
    Cmd: tuple[str, ...] | None = None
    Env: tuple[str, ...] | None = None
    WorkingDir: str | None = None
    User: str | None = None
    ExposedPorts: dict[str, Any] | None = None


class _RootFs(_Document):
    diff_ids: tuple[str, ...] = Field(max_length=MOST_LAYERS)


class Configuration(_Document):
    """How the image wants to be run, and the digest of each unpacked layer."""

    os: str = "linux"
    architecture: str = ""
    config: _Inner | None = None
    rootfs: _RootFs

    def checked(self) -> ImageConfig:
        """What of it counts here.

        Raises:
            ImageRefused: another platform, or texts no process can be given.
        """
        here = architecture()
        if self.os != "linux" or self.architecture not in {"", here}:
            raise ImageRefused(
                f"the image is made for {self.os[:40]}/{self.architecture[:40]}, not linux/{here}"
            )
        inner = self.config or _Inner()
        words = (*(inner.Entrypoint or ()), *(inner.Cmd or ()))
        variables = inner.Env or ()
        texts = (*words, *variables, inner.WorkingDir or "", inner.User or "")
        if len(texts) > _MOST_WORDS or sum(len(text) for text in texts) > _MOST_TEXT:
            raise ImageRefused("its command and environment have more than 64 KiB")
        try:
            for text in texts:
                plain_text(text)
        except ValueError:
            raise ImageRefused(
                "its command or environment holds what no process can be given"
            ) from None
        ports = sorted(inner.ExposedPorts or {})
        return ImageConfig(
            command=words,
            env=dict(text.split("=", 1) for text in variables if text.find("=") > 0),
            workdir=inner.WorkingDir if (inner.WorkingDir or "").startswith("/") else None,
            user=(inner.User or "")[:128] or None,
            exposed_ports=tuple(
                port for port in ports if re.fullmatch(r"[0-9]{1,5}(/(tcp|udp|sctp))?", port)
            )[:100],
        )


def architecture() -> str:
    """This host's, as images call it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def read(kind: type[_D], content: bytes, what: str) -> _D:
    """A document from its bytes.

    Raises:
        ImageRefused: it is none.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ImageRefused(f"its {what} is broken: {place or 'document'}: {first['msg']}") from None


def digest_of(content: bytes) -> str:
    """`sha256:` and the hexadecimal digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
