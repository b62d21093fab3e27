"""Layers and documents of images, kept by digest: what two images share is fetched once."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

from bastide.node.errors import ImageRefused, NoSpace

_CHUNK = 1024 * 1024


class Blobs:
    """The files `directory/HEX`, each complete; `HEX.part` is what has come of one so far."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, digest: str) -> asyncio.Lock:
        """Held by whoever fetches a blob."""
        return self._locks.setdefault(digest, asyncio.Lock())

    def path(self, digest: str) -> Path:
        """Where the blob of a checked digest (`sha256:…`) is or belongs."""
        return self.directory / digest.removeprefix("sha256:")

    def has(self, digest: str, size: int) -> bool:
        """Whether the blob is there, and marks it as used."""
        path = self.path(digest)
        try:
            there = path.stat().st_size == size
        except OSError:
            return False
        if there:
            with suppress(OSError):
                os.utime(path)
        return there

    def keep(self, content: bytes, digest: str) -> None:
        """Keep a small blob whose digest was checked. Blocks."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path(digest).with_suffix(".part")
        try:
            draft.write_bytes(content)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise NoSpace(f"the image cannot be written: {error.strerror}") from error
        draft.rename(self.path(digest))


class Draft:
    """A blob that is being fetched; goes on where an earlier try broke off. Blocks."""

    def __init__(self, blobs: Blobs, digest: str, size: int) -> None:
        self._final = blobs.path(digest)
        self._part = self._final.with_suffix(".part")
        self._digest, self._size = digest, size
        self._sum = hashlib.sha256()
        blobs.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._file = self._part.open("ab+")
        except OSError as error:
            raise NoSpace(f"the image cannot be written: {error.strerror}") from error
        self.have = self._recall()

    def _recall(self) -> int:
        """Bytes of an earlier try, if they can be a beginning."""
        self._file.seek(0)
        have = 0
        while chunk := self._file.read(_CHUNK):
            self._sum.update(chunk)
            have += len(chunk)
        if have >= self._size:
            self.restart()
            return 0
        return have

    def restart(self) -> None:
        """Begin again with nothing."""
        self._file.truncate(0)
        self._sum = hashlib.sha256()
        self.have = 0

    def add(self, chunk: bytes) -> None:
        """Append.

        Raises:
            ImageRefused: more comes than the manifest says.
            NoSpace: the disk is full.
        """
        if self.have + len(chunk) > self._size:
            self.drop()
            raise ImageRefused(f"the registry sent more of {self._digest[:19]} than it has")
        try:
            self._file.write(chunk)
        except OSError as error:
            self.drop()
            raise NoSpace(f"the image cannot be written: {error.strerror}") from error
        self._sum.update(chunk)
        self.have += len(chunk)

    def finish(self) -> None:
        """Make it the blob.

        Raises:
            ImageRefused: it is not what its digest says.
            NoSpace: the disk is full.
        """
        try:
            self._file.flush()
        except OSError as error:
            self.drop()
            raise NoSpace(f"the image cannot be written: {error.strerror}") from error
        if self.have != self._size or f"sha256:{self._sum.hexdigest()}" != self._digest:
            self.drop()
            raise ImageRefused(f"what the registry sent is not {self._digest[:19]}")
        self._file.close()
        self._part.rename(self._final)

    def close(self) -> None:
        """Let go of the file; what there is of it stays for another try."""
        with suppress(OSError):
            self._file.close()

    def drop(self) -> None:
        """Remove what there is of it."""
        self.close()
        self._part.unlink(missing_ok=True)
