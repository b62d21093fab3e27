"""From fetched layers, or the archive of an image, to an image: a program of its own.

`python -m bastide.node.images.assembly` reads a job from its standard input and tells on its
standard output, a JSON document a line, how far it is. What strangers have made is read here, in
a process that can be ended, takes less of the processor than machines, and holds no secret.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from bastide.domain.image import ImageManifest, ImageWords
from bastide.domain.machine import ImageOrigin
from bastide.node.errors import ImageRefused, ImageUnavailable, NodeError, NoSpace
from bastide.node.images.blobs import Blobs, Draft
from bastide.node.images.documents import (
    INDEXES,
    MOST_DOCUMENT,
    Configuration,
    Descriptor,
    Index,
    Manifest,
    read,
)
from bastide.node.images.layers import apply, inside
from bastide.node.images.packing import pack, read_manifest, write_manifest
from bastide.node.images.tape import Budget, Inflated, Source, Tape
from bastide.node.layout import MOUNT_POINTS, check_image

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZSTD_MEMORY = "--memory=134217728"
_MEMORY = 4 * 2**30
_NICE = 10
_BLOB = re.compile(r"(?:\./)?blobs/sha256/([0-9a-f]{64})")
_LAYOUT = re.compile(r"(?:\./)?index\.json")
_REF_NAME = "org.opencontainers.image.ref.name"
_PR_SET_PDEATHSIG = 1
_SETTLED = {"resolv.conf": 0o644, "hosts": 0o644, "hostname": 0o644}


class Job(BaseModel):
    """What is to be made. `manifest` is a digest, or None: that of the archive.

    `scratch` is an empty, closed directory on the file system of `home`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path
    scratch: Path
    blobs: Path
    max_bytes: int
    max_entries: int
    reserve: int
    manifest: str | None = None
    archive: Path | None = None
    origin: ImageOrigin
    words: ImageWords | None = None


def main() -> int:
    """Do the job on standard input; 0 unless it could not be read at all."""
    _settle_process()
    job = Job.model_validate_json(sys.stdin.buffer.read())
    try:
        made = assemble(job)
    except NodeError as error:
        _tell(error=error.code, message=error.message)
    except (MemoryError, RecursionError):
        _tell(error=ImageRefused.code, message="the image needs too much memory to be read")
    except OSError as error:
        _tell(error=NoSpace.code, message=f"the image cannot be written: {error}")
    else:
        _tell(image=made.id)
    return 0


def assemble(job: Job) -> ImageManifest:
    """Make the image.

    Raises:
        ImageRefused: it is broken, hostile, or too large.
        NoSpace: the disk is full.
    """
    blobs = Blobs(job.blobs)
    digest = job.manifest
    if job.archive is not None:
        _say("reading the archive")
        digest = _ingest(job, blobs)
    if digest is None:
        raise ImageRefused("there is no manifest")
    present = read_manifest(job.home, digest.replace(":", "-"))
    if present is not None:
        if job.words is not None:
            present = present.model_copy(update={"words": job.words, "origin": job.origin})
            write_manifest(job.home, present)
        return present
    manifest = read(Manifest, _document(blobs, digest), "manifest")
    manifest.check()
    wanted = read(Configuration, _document(blobs, manifest.config.digest), "configuration")
    config = wanted.checked()
    if len(wanted.rootfs.diff_ids) != len(manifest.layers):
        raise ImageRefused("its configuration speaks of other layers than its manifest")
    budget = Budget(job.max_bytes, job.max_entries, job.reserve)
    tree = job.scratch / "tree"
    tree.mkdir(mode=0o755)
    pairs = zip(manifest.layers, wanted.rootfs.diff_ids, strict=True)
    for number, (layer, diff_id) in enumerate(pairs, 1):
        _say(f"unpacking layer {number} of {len(manifest.layers)}")
        with _opened(blobs.path(layer.digest)) as source, inside(tree):
            if apply(source, budget) != diff_id:
                raise ImageRefused(f"layer {number} is not what its configuration says")
    with inside(tree):
        _settle()
    try:
        check_image(tree)
    except ImageUnavailable as error:
        raise ImageRefused(error.message) from None
    _say("packing")
    return pack(
        tree,
        job.home,
        digest.replace(":", "-"),
        digest,
        words=job.words,
        origin=job.origin,
        config=config,
        skipped=budget.skipped,
        scratch=job.scratch,
    )


def _document(blobs: Blobs, digest: str) -> bytes:
    try:
        with blobs.path(digest).open("rb") as file:
            return file.read(MOST_DOCUMENT)
    except FileNotFoundError:
        raise ImageRefused(f"{digest[:19]} is missing from it") from None


@contextmanager
def _opened(path: Path) -> Iterator[Source]:
    """The unpacked bytes of a layer."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise ImageRefused(f"layer {path.name[:12]} is missing from it") from None
    with file:
        begin = file.read(4)
        file.seek(0)
        if begin.startswith(_GZIP):
            yield Inflated(file)
        elif begin.startswith(_ZSTD):
            with _zstd(file) as source:
                yield source
        else:
            yield file


@contextmanager
def _zstd(file: IO[bytes]) -> Iterator[IO[bytes]]:
    argv = ["zstd", "-dcq", _ZSTD_MEMORY]
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # what is in our buffer it would not see
    try:
        running = subprocess.Popen(
            argv, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise ImageRefused("zstd is not installed on this server: apt-get install zstd") from None
    assert running.stdout is not None  # noqa: S101 - asked for
    try:
        yield running.stdout
        if running.wait() != 0:
            raise ImageRefused("a layer is no zstd file")
    finally:
        running.stdout.close()
        running.kill()
        running.wait()


def _settle() -> None:
    """Put into the root directory what the runtime mounts upon (see `inside`)."""
    for name in MOUNT_POINTS:
        with suppress(FileExistsError):
            os.mkdir(f"/{name}", 0o755)  # noqa: PTH102
    for name, mode in (("tmp", 0o1777), ("root", 0o700)):
        with suppress(FileExistsError):
            os.mkdir(f"/{name}", mode)  # noqa: PTH102
            os.chmod(f"/{name}", mode)  # noqa: PTH101
    if os.path.islink("/etc") or not os.path.isdir("/etc"):  # noqa: PTH112, PTH114
        return  # refused when it is packed
    for name, mode in _SETTLED.items():
        path = f"/etc/{name}"
        if os.path.isfile(path) and not os.path.islink(path):  # noqa: PTH113, PTH114
            continue
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
            raise ImageRefused(f"its {path} is a directory")
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))


def _ingest(job: Job, blobs: Blobs) -> str:
    """Take the blobs out of an OCI archive; the digest of the manifest it is about.

    Raises:
        ImageRefused: it is no such archive.
    """
    assert job.archive is not None  # noqa: S101 - asked before
    budget = Budget(job.max_bytes, job.max_entries, job.reserve)
    index: bytes | None = None
    try:
        with _opened(job.archive) as source:
            tape = Tape(source, budget)
            with tarfile.TarFile(fileobj=tape, mode="r") as archive:  # type: ignore[arg-type]
                while (entry := archive.next()) is not None:
                    budget.entry()
                    archive.members.clear()  # type: ignore[attr-defined]
                    content = archive.extractfile(entry) if entry.isreg() else None
                    if content is None:
                        continue
                    if _LAYOUT.fullmatch(entry.name) and entry.size <= MOST_DOCUMENT:
                        index = content.read(MOST_DOCUMENT)
                    elif found := _BLOB.fullmatch(entry.name):
                        _take(blobs, f"sha256:{found[1]}", entry.size, content)
    except (tarfile.TarError, UnicodeError, ValueError, OverflowError) as error:
        raise ImageRefused(f"the file is no archive of an image: {error}") from None
    if index is None:
        raise ImageRefused(
            "the file is no OCI archive: it has no index.json (docker save of version 25 or "
            "newer, podman save --format oci-archive, and skopeo copy … oci-archive: write them)"
        )
    return _chosen(blobs, read(Index, index, "index"))


def _take(blobs: Blobs, digest: str, size: int, content: Source) -> None:
    if blobs.has(digest, size):
        return
    draft = Draft(blobs, digest, size)
    try:
        draft.restart()
        while data := content.read(256 * 1024):
            draft.add(data)
        draft.finish()
    finally:
        draft.close()


def _chosen(blobs: Blobs, index: Index) -> str:
    """The manifest for this host, down through indexes of indexes."""
    for _ in range(4):
        found: Descriptor = index.fitting()
        if found.mediaType not in INDEXES:
            return found.digest
        index = read(Index, _document(blobs, found.digest), "index")
    raise ImageRefused("its indexes are nested too deep")


def _settle_process() -> None:
    """Give way to machines, be bounded, and end with whoever started this."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o022)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _say(message: str) -> None:
    _tell(message=message)


def _tell(**fields: str) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
