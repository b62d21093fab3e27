"""Packing files and trees of the workspace into a tar, as a stream.

Symlinks are stored as links and never followed. Sockets, FIFOs and devices are left out, and so
are the kernel's file systems and the agent's bundle. What cannot be read is left out and told in
a last member, `.bastide-skipped`. A download is compressed with gzip; a backup is plain and keeps
extended attributes (`bastide_agent.transfer.backup`).
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import io
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bastide_agent.http.errors import ApiError, invalid, not_found
from bastide_agent.pattern import compiled
from bastide_agent.pseudo import PSEUDO
from bastide_agent.transfer import attributes, tarball
from bastide_agent.transfer.relay import PIECE

LEVEL = 1  # of gzip: four times as fast as 6, a tenth larger
BATCH = 64 * 1024  # bytes of headers and small files compressed at once
SEND = 128 * 1024  # compressed bytes sent at once
MAX_DEPTH = 256  # directories below a path asked for; two descriptors each
MAX_LINKED = 16384  # files with several names remembered, so that they are stored once
MAX_EXTENTS = 16384  # parts of a sparse file; what follows the last is stored as it is
HOLES = 1024 * 1024  # bytes a file must lack on disk to be stored as sparse
NOTES = 64 * 1024  # bytes of names of what was skipped
SKIPPED = b".bastide-skipped"
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ZEROS = bytes(BATCH)


@dataclass(slots=True)
class Root:
    """One path asked for, and its name in the archive (empty for `/`).

    `relative` is what paths below it begin with where they are compared with excludes; `above`
    are directories that are stored before it, without what is in them.
    """

    path: str
    name: bytes
    relative: str = ""
    above: Sequence[tuple[str, bytes]] = ()


def find_roots(paths: Sequence[str]) -> list[Root]:
    """What to pack, each under its base name.

    Raises:
        ApiError: 404 when one is not there, 400 when it cannot be packed or two have one name.
    """
    hidden = pseudo_devices()
    roots: dict[bytes, Root] = {}
    for given in dict.fromkeys(paths):
        path = given.rstrip("/") or "/"
        name = os.path.basename(path)  # noqa: PTH119  (pathlib is dear to import)
        if name in (".", ".."):
            raise invalid("paths", f"{given!r} must end in the name of a file or directory")
        _check(path, hidden)
        root = Root(path, os.fsencode(name))
        other = roots.setdefault(root.name, root)
        if other.path != path:
            message = f"{other.path!r} and {path!r} have the same name in the archive: ask twice"
            raise invalid("paths", message)
    if b"" in roots and len(roots) > 1:
        raise invalid("paths", "/ holds every other path: ask for it alone")
    return list(roots.values())


def _check(path: str, hidden: frozenset[int]) -> None:
    try:
        info = os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise not_found(f"there is nothing at {path!r}") from None
        reason = os.strerror(error.errno or 0).lower()
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ApiError(403, "forbidden", f"{path!r} cannot be read: {reason}") from None
        raise invalid("paths", f"{path!r} cannot be read: {reason}") from None
    mode = info.st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise invalid("paths", f"{path!r} is no file, directory or symlink")
    if info.st_dev in hidden:
        raise invalid("paths", f"{path!r} is the kernel's or the agent's, not a file to download")


def pseudo_devices() -> frozenset[int]:
    """The device numbers of the file systems that are not the workspace's."""
    found = set()
    for name in PSEUDO:
        with contextlib.suppress(OSError):
            found.add(os.lstat(f"/{name}").st_dev)
    return frozenset(found - {os.lstat("/").st_dev})


def excluding(globs: Sequence[str]) -> Callable[[str, str], bool]:
    """Whether a name, or a path relative to what was asked for, fits one of the globs."""
    plain = [glob.strip("/") for glob in globs]
    names = frozenset(glob for glob in plain if not set("*?[/") & set(glob))
    others = "|".join(fnmatch.translate(glob) for glob in plain if glob and glob not in names)
    fits = compiled(others or "(?!)").match

    def excluded(name: str, relative: str) -> bool:
        return name in names or fits(name) is not None or fits(relative) is not None

    return excluded


class Packer:
    """Writes the archive to `send`, piece by piece.

    `excluded` is asked for the name of an entry and its path below what was asked for.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        excluded: Callable[[str, str], bool],
        *,
        backup: bool = False,
    ) -> None:
        self._send = send
        self._deflate = None if backup else zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
        self._only = os.lstat("/").st_dev if backup else None
        self._batch = bytearray()
        self._packed = bytearray()
        self._buffer = memoryview(bytearray(PIECE))
        self._excluded = excluded
        self._pseudo = pseudo_devices()
        self._linked: dict[tuple[int, int], bytes] = {}
        self._notes = bytearray()

    def pack(self, roots: Sequence[Root]) -> None:
        """Pack everything and finish the stream.

        Raises:
            ClientGoneError: nobody takes it.
        """
        for root in roots:
            try:
                for path, name in root.above:
                    self._header_of(path, name)
                info = os.lstat(root.path)
                if stat.S_ISDIR(info.st_mode):
                    self._directory(None, root.path, root.name, root.relative, 0)
                else:
                    self._other(None, root.path, root.name, info)
            except OSError as error:
                self._skip(root.name, error)
        self._tell()
        self._add(tarball.END)
        self._compress()
        if self._deflate is not None:
            self._packed += self._deflate.flush()
        self._forward(0)

    # -- entries

    def _directory(
        self, above: int | None, path: str, name: bytes, relative: str, depth: int
    ) -> None:
        """A directory and all below it. `path` is relative to the descriptor `above`."""
        fd = os.open(path, OPEN_DIRECTORY, dir_fd=above)
        try:
            info = os.fstat(fd)
            if info.st_dev in self._pseudo or self._only not in (None, info.st_dev):
                return
            if name:
                self._attributes(fd)
                self._add(tarball.header(name + b"/", tarball.DIRECTORY, info))
            at_root = not name
            with os.scandir(fd) as entries:
                for entry in entries:
                    if at_root and entry.name in PSEUDO:
                        continue
                    inner = f"{relative}/{entry.name}" if relative else entry.name
                    if self._excluded(entry.name, inner):
                        continue
                    member = os.fsencode(entry.name)
                    member = member if at_root else name + b"/" + member
                    self._entry(fd, entry, member, inner, depth + 1)
        finally:
            os.close(fd)

    def _header_of(self, path: str, name: bytes) -> None:
        """A directory alone, without what is in it."""
        info = os.lstat(path)
        if stat.S_ISDIR(info.st_mode):
            self._add(tarball.header(name + b"/", tarball.DIRECTORY, info))

    def _attributes(self, fd: int) -> None:
        """What a backup keeps of the extended attributes of an entry that follows."""
        if self._only is not None:
            records = attributes.read(fd)
            if records:
                self._add(tarball.extension(records))

    def _entry(
        self, above: int, entry: os.DirEntry[str], name: bytes, relative: str, depth: int
    ) -> None:
        try:
            if not entry.is_dir(follow_symlinks=False):
                self._other(above, entry.name, name, None)
            elif depth > MAX_DEPTH:
                self._note(name, f"more than {MAX_DEPTH} directories deep")
            else:
                self._directory(above, entry.name, name, relative, depth)
        except OSError as error:
            self._skip(name, error)

    def _other(
        self, above: int | None, path: str, name: bytes, info: os.stat_result | None
    ) -> None:
        """Anything but a directory."""
        info = info or os.stat(path, dir_fd=above, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode):
            if info.st_nlink > 1 and self._again(name, info):
                return
            self._file(above, path, name)
        elif stat.S_ISLNK(info.st_mode):
            target = os.readlink(path, dir_fd=above)
            self._add(tarball.header(name, tarball.SYMLINK, info, target=os.fsencode(target)))

    def _again(self, name: bytes, info: os.stat_result) -> bool:
        """Store another name of a file that is in the archive already."""
        first = self._linked.get((info.st_dev, info.st_ino))
        if first is None:
            return False
        self._add(tarball.header(name, tarball.LINK, info, target=first))
        return True

    def _file(self, above: int | None, path: str, name: bytes) -> None:
        fd = os.open(path, OPEN_FILE, dir_fd=above)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_dev in self._pseudo:
                return
            extents = _extents(fd, info)
            self._attributes(fd)
            if extents is None:
                self._add(tarball.header(name, tarball.FILE, info, size=info.st_size))
                size = info.st_size
                self._contents(fd, name, size)
            else:
                size = sum(length for _, length in extents)
                self._add(tarball.header(name, tarball.SPARSE, info, size=size, extents=extents))
                for offset, length in extents:
                    os.lseek(fd, offset, os.SEEK_SET)
                    self._contents(fd, name, length)
            self._zeros(tarball.padding(size))
        finally:
            os.close(fd)
        if info.st_nlink > 1 and len(self._linked) < MAX_LINKED:
            self._linked[info.st_dev, info.st_ino] = name

    def _contents(self, fd: int, name: bytes, size: int) -> None:
        """Exactly `size` bytes of a file, whatever happens to it meanwhile."""
        left = size
        while left:
            try:
                count = os.readv(fd, [self._buffer[: min(left, PIECE)]])
            except OSError as error:
                self._note(name, f"zeros from byte {size - left}: {_reason(error)}")
                break
            if not count:
                self._note(name, f"it shrank while it was read: zeros from byte {size - left}")
                break
            self._add(self._buffer[:count])
            left -= count
        self._zeros(left)

    def _zeros(self, count: int) -> None:
        while count > 0:
            self._add(ZEROS[:count])
            count -= len(ZEROS)

    # -- what was left out

    def _skip(self, name: bytes, error: OSError) -> None:
        """An entry cannot be read. One that is just gone was not there."""
        if isinstance(error, ConnectionError):
            raise error
        if error.errno != errno.ENOENT:
            self._note(name, _reason(error))

    def _note(self, name: bytes, reason: str) -> None:
        if len(self._notes) < NOTES:
            self._notes += (name or b"/") + b"\t" + reason.encode() + b"\n"

    def _tell(self) -> None:
        if not self._notes:
            return
        info = os.stat_result((0o100644, 0, 0, 1, 0, 0, len(self._notes), 0, 0, 0))
        self._add(tarball.header(SKIPPED, tarball.FILE, info, size=len(self._notes)))
        self._add(self._notes)
        self._zeros(tarball.padding(len(self._notes)))

    # -- the stream

    def _add(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) >= BATCH:
            self._compress()
            self._press(data)
            return
        self._batch += data
        if len(self._batch) >= BATCH:
            self._compress()

    def _compress(self) -> None:
        if self._batch:
            self._press(self._batch)
            self._batch = bytearray()

    def _press(self, data: bytes | bytearray | memoryview) -> None:
        self._packed += data if self._deflate is None else self._deflate.compress(data)
        self._forward(SEND)

    def _forward(self, least: int) -> None:
        if len(self._packed) >= max(least, 1):
            self._send(bytes(self._packed))
            self._packed = bytearray()


def _extents(fd: int, info: os.stat_result) -> list[tarball.Extent] | None:
    """Where a sparse file has data; None for an ordinary file."""
    size = info.st_size
    if info.st_blocks * 512 + HOLES > size:
        return None
    found: list[tarball.Extent] = []
    end = 0
    while end < size and len(found) < MAX_EXTENTS - 1:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(size, os.lseek(fd, start, os.SEEK_HOLE))
        except OSError as error:
            if error.errno != errno.ENXIO:
                found, end = [(0, size)], size
                break
            end = size  # no data after this
            break
        if start >= size:
            break
        found.append((start, end - start))
    if end < size:
        found.append((end, size - end))
    elif not found or sum(found[-1]) < size:
        found.append((size, 0))  # tells where the last hole ends
    os.lseek(fd, 0, io.SEEK_SET)
    return None if found == [(0, size)] else found


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
