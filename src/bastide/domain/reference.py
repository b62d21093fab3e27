"""References of images in registries: `registry/name:tag`, `registry/name@sha256:…`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

DOCKER_HUB = "docker.io"
MOST = 255
"""Characters of a reference, as those who serve images allow for a name."""

_HOST = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,62})?\.)*[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,62})?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """One image in a registry. `registry` is `host` or `host:port`; `digest` wins over `tag`."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def version(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or "latest"

    @property
    def name(self) -> str:
        """The reference in full: two that mean the same have the same name."""
        mark = f"@{self.digest}" if self.digest else f":{self.version}"
        return f"{self.registry}/{self.repository}{mark}"

    @classmethod
    def parse(cls, text: str, default_registry: str = DOCKER_HUB) -> Reference:
        """Read a reference as people write it; without a registry it is one of the default's.

        Raises:
            ValueError: it is none; the message says why.
        """
        if len(text) > MOST or not text.isascii():
            raise ValueError(f"must be plain text of at most {MOST} characters")
        rest, at, digest = text.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise ValueError("the digest after @ must be sha256: and 64 hexadecimal digits")
        path, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:  # the colon belongs to a port
            path, tag = rest, ""
        elif not _TAG.fullmatch(tag):
            raise ValueError(f"{tag!r} is no tag")
        first, slash, repository = path.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry = _registry(first)
        else:
            registry, repository = default_registry, path
            if registry == DOCKER_HUB and "/" not in repository:
                repository = f"library/{repository}"
        parts = repository.split("/")
        if not all(_COMPONENT.fullmatch(part) for part in parts):
            raise ValueError(
                f"{repository!r} is no name of an image: it has lower-case letters and digits, "
                "with single marks between them"
            )
        return cls(registry, repository, tag or (None if digest else "latest"), digest or None)


def looks_like_one(text: str) -> bool:
    """Whether a text can only be meant for a registry, and not for the catalogue.

    A bare word is an id of the catalogue: a slip there is told at once, and not fetched.
    """
    return any(mark in text for mark in "/:@")


def unknown_image(text: str, known: Iterable[str]) -> str:
    """The sentence for a bare word that is no id of the catalogue, whose ids are `known`."""
    listed = ", ".join(sorted(known)) or "none yet"
    return (
        f"There is no image {text!r} here. The images are: {listed}. One of a registry is named "
        f"with its tag, such as {text}:latest."
    )


def _registry(text: str) -> str:
    """`host` or `host:port`, checked.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.partition(":")
    if not _HOST.fullmatch(host) or (colon and (not _PORT.fullmatch(port) or int(port) > 65535)):
        raise ValueError(f"{text!r} is no address of a registry")
    return text.lower()
