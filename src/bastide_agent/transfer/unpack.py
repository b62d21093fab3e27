"""Extraction of an uploaded archive.

Files, links and directories are made; devices, FIFOs and sockets are refused. Modes are kept, with
the set-id bits only where the owner is the archive's too. Directories that exist already keep
their modes and times, and `dest` itself always does. Extended attributes are not kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence

from bastide_agent.http.errors import ApiError, invalid
from bastide_agent.transfer import attributes
from bastide_agent.transfer.archive import Archive
from bastide_agent.transfer.beneath import Beneath, split
from bastide_agent.transfer.source import Source
from bastide_agent.transfer.tarball import (
    DIRECTORY,
    FILE,
    LINK,
    SPARSE,
    SYMLINK,
    Member,
    TarError,
)

MAX_MEMBERS = 1_000_000
MAX_ID = 2**32 - 2
TEMPORARY = b".bastide-upload-"
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
KINDS = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO"}
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
CHANGED = (errno.ENOENT, errno.ESTALE, errno.EEXIST, errno.EBUSY, errno.ETXTBSY)
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)


LeftOut = Callable[[Sequence[bytes]], bool]


def unpack(
    read: Callable[[], bytes], dest: str, *, keep_owner: bool, left_out: LeftOut | None = None
) -> int:
    """Extract a tar or tar.gz into a directory; how many files and links were extracted.

    `left_out` marks a backup, which may have any number of entries: it is asked for the parts of
    each name whether to pass it over.

    Raises:
        ApiError: 400 for a broken or hostile archive, 403, 409, 413, 503 or 507 when the
            workspace cannot take it; `details` tell the member and how many came before it.
        ClientGoneError: the client left before the end. What is complete stays.
    """
    source = Source(read)
    try:
        beneath = Beneath(dest)
    except OSError as error:
        raise _destination_error(dest, error) from None
    extraction = Extraction(beneath, source, keep_owner=keep_owner, left_out=left_out)
    try:
        extraction.run()
    finally:
        with contextlib.suppress(OSError):
            beneath.close()
    return extraction.extracted


class Extraction:
    """One archive on its way into one destination."""

    def __init__(
        self, beneath: Beneath, source: Source, *, keep_owner: bool, left_out: LeftOut | None
    ) -> None:
        self.extracted = 0
        self._left_out = left_out
        self._beneath = beneath
        self._archive = Archive(source)
        self._keep_owner = keep_owner

    def run(self) -> None:
        """Extract every member.

        Raises:
            ApiError: see `unpack`.
        """
        member: Member | None = None
        try:
            for count, member in enumerate(self._archive):
                if count == MAX_MEMBERS and self._left_out is None:
                    message = f"the archive has more than {MAX_MEMBERS} entries, the most taken"
                    raise self._refusal(413, "payload_too_large", message, member)
                self._extract(member)
                member = None  # noqa: PLW2901  (what fails now is the archive's fault)
        except TarError as error:
            what = f"{os.fsdecode(member.name)[:200]!r}: " if member is not None else ""
            raise self._refusal(400, "validation_error", f"{what}{error}", member) from None
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise self._kernel_error(error, member) from None

    def _extract(self, member: Member) -> None:
        parts = split(member.name)
        if self._left_out is not None and self._left_out(parts):
            return
        if member.kind == DIRECTORY:
            if parts:
                self._directory(parts, member)
            return
        if not parts:
            raise TarError("it has no name")
        if b"\0" in member.name or b"\0" in member.target:
            raise TarError("its name holds a NUL byte")
        if member.kind in (FILE, SPARSE):
            self._file(parts, member)
        elif member.kind == SYMLINK:
            self._symlink(parts, member)
        elif member.kind == LINK:
            self._link(parts, member)
        else:
            kind = KINDS.get(member.kind, f"an entry of unknown type {member.kind!r}")
            raise TarError(f"it is {kind}, which is not taken: only files, directories and links")
        self.extracted += 1

    def _directory(self, parts: list[bytes], member: Member) -> None:
        fd = self._beneath.directory(parts)
        if fd is not None:
            self._own(fd, member)
            os.fchmod(fd, self._mode(member))
            self._attribute(fd, member)
            self._beneath.date_when_left(member.mtime_ns)

    def _file(self, parts: list[bytes], member: Member) -> None:
        """Write beside the place, then put it there in one step."""
        above = self._beneath.parent(parts)
        temporary = _temporary_name()
        fd = os.open(temporary, NEW_FILE, 0o600, dir_fd=above)
        try:
            try:
                self._write(fd, member)
                self._own(fd, member)
                os.fchmod(fd, self._mode(member))
                self._attribute(fd, member)
                os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
            finally:
                os.close(fd)
            self._place(above, temporary, parts[-1])
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=above)
            raise

    def _write(self, fd: int, member: Member) -> None:
        if member.extents is None:
            for piece in self._archive.data():
                _write_all(fd, piece)
            return
        data = self._archive.data()
        piece = memoryview(b"")
        for offset, length in member.extents:
            os.lseek(fd, offset, os.SEEK_SET)
            left = length
            while left:
                piece = piece or next(data)
                _write_all(fd, piece[:left])
                done = min(left, len(piece))
                piece, left = piece[done:], left - done
        os.ftruncate(fd, member.real_size)

    def _symlink(self, parts: list[bytes], member: Member) -> None:
        if not member.target:
            raise TarError("it is a link to nothing")
        above = self._beneath.parent(parts)
        temporary = _temporary_name()
        os.symlink(member.target, temporary, dir_fd=above)
        try:
            if self._keep_owner:
                uid, gid = _owner(member)
                os.chown(temporary, uid, gid, dir_fd=above, follow_symlinks=False)
            times = (member.mtime_ns, member.mtime_ns)
            os.utime(temporary, ns=times, dir_fd=above, follow_symlinks=False)
            self._place(above, temporary, parts[-1])
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=above)
            raise

    def _link(self, parts: list[bytes], member: Member) -> None:
        try:
            target = split(member.target)
        except TarError as error:
            raise TarError(f"the file it links to: {error}") from None
        above = self._beneath.parent(parts)
        temporary = _temporary_name()
        try:
            source = self._beneath.find(target)
            try:
                if not target or not _linkable(target[-1], source):
                    raise TarError("it is a hard link to something that is no file")
                os.link(
                    target[-1], temporary, src_dir_fd=source, dst_dir_fd=above,
                    follow_symlinks=False,
                )  # fmt: skip
            finally:
                os.close(source)
        except (FileNotFoundError, NotADirectoryError):
            what = os.fsdecode(member.target)[:200]
            raise TarError(f"it is a hard link to {what!r}, which is not in dest") from None
        try:
            self._place(above, temporary, parts[-1])
        finally:  # a rename between two names of one file does nothing
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=above)

    def _place(self, above: int, temporary: bytes, name: bytes) -> None:
        try:
            os.rename(temporary, name, src_dir_fd=above, dst_dir_fd=above)
        except (IsADirectoryError, FileExistsError):
            raise TarError("there is a directory of that name in dest") from None

    def _own(self, fd: int, member: Member) -> None:
        if self._keep_owner:
            os.fchown(fd, *_owner(member))

    def _attribute(self, fd: int, member: Member) -> None:
        if self._left_out is not None and member.attributes:
            attributes.write(fd, member.attributes)

    def _mode(self, member: Member) -> int:
        mode = member.mode
        if not self._keep_owner:  # a program set-id to somebody must not become root's
            mode &= ~stat.S_ISUID if member.uid else ~0
            mode &= ~stat.S_ISGID if member.gid else ~0
        return mode

    def _refusal(self, status: int, code: str, message: str, member: Member | None) -> ApiError:
        details: dict[str, object] = {"files_extracted": self.extracted}
        if member is not None:
            details["member"] = os.fsdecode(member.name)[:1024]
        message = f"{message} ({self.extracted} files were extracted before)"
        return ApiError(status, code, message, details)

    def _kernel_error(self, error: OSError, member: Member | None) -> ApiError:
        name = os.fsdecode(member.name)[:200] if member is not None else "the archive"
        number = error.errno or 0
        reason = os.strerror(number).lower()
        if number in NO_SPACE:
            message = f"the disk of the workspace is full: {name!r} does not fit"
            return self._refusal(507, "insufficient_storage", message, member)
        if number == errno.EFBIG:
            message = f"{name!r} is larger than a file can be"
            return self._refusal(413, "payload_too_large", message, member)
        if number in REFUSED:
            message = f"{name!r} cannot be written: {reason}"
            return self._refusal(403, "forbidden", message, member)
        if number in CHANGED:
            message = f"{name!r} cannot be written, something changed dest meanwhile: {reason}"
            return self._refusal(409, "conflict", message, member)
        if number in SCARCE:
            message = f"{name!r} cannot be written now: {reason}"
            return self._refusal(503, "io_error", message, member)
        message = f"{name!r} cannot be written: {reason}"
        return self._refusal(400, "validation_error", message, member)


def _temporary_name() -> bytes:
    return TEMPORARY + os.urandom(8).hex().encode()


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _owner(member: Member) -> tuple[int, int]:
    if not 0 <= member.uid <= MAX_ID or not 0 <= member.gid <= MAX_ID:
        raise TarError(f"its owner {member.uid}:{member.gid} cannot be")
    return member.uid, member.gid


def _linkable(name: bytes, above: int) -> bool:
    mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _destination_error(dest: str, error: OSError) -> ApiError:
    number = error.errno or 0
    reason = os.strerror(number).lower()
    if number in NO_SPACE:
        return ApiError(507, "insufficient_storage", "the disk of the workspace is full")
    if number in REFUSED:
        message = f"dest {dest!r} cannot be written: {reason}"
        return ApiError(403, "forbidden", message, {"field": "dest"})
    if number in SCARCE:
        return ApiError(503, "io_error", f"dest {dest!r} cannot be opened now: {reason}")
    return invalid("dest", f"dest must be a directory, or a place where one can be made: {reason}")
