"""An initramfs: a cpio archive of the kind the kernel unpacks (initramfs/buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One file of the archive; everything is root's and of the beginning of time."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, mode: int = 0o755) -> Entry:
    """A directory; its parents must come before."""
    return Entry(name, stat.S_IFDIR | mode)


def file(name: str, content: bytes, mode: int) -> Entry:
    """A regular file."""
    return Entry(name, stat.S_IFREG | mode, content)


def device(name: str, major: int, minor: int, mode: int) -> Entry:
    """A character device."""
    return Entry(name, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The whole archive, not compressed: the same bytes for the same entries."""
    whole = bytearray()
    for number, entry in enumerate((*entries, Entry("TRAILER!!!", 0)), start=1):
        name = entry.name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (
            *(number, entry.mode, 0, 0, links, 0, len(entry.content)),
            *(0, 0, *entry.device, len(name), 0),
        )
        whole += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        whole += b"\0" * (-len(whole) % 4)
        whole += entry.content
        whole += b"\0" * (-len(whole) % 4)
    return bytes(whole)
