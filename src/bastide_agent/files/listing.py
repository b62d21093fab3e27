"""Listing directories: one walk for the list and for the stream (spec runtime 4.1 and 4.2)."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING

from bastide_agent.files.entry import extension, is_code, kind, modified, size_of
from bastide_agent.files.gitignore import Rules, Scopes
from bastide_agent.files.place import DIRECTORY, opened_directory, read_all, tidy
from bastide_agent.pseudo import pseudo_below

if TYPE_CHECKING:
    from bastide_agent.http.fields import Fields

ENTRY_LIMIT = 50_000
DEFAULT_DEPTH = 20
MAX_DEPTH = 100
CONTENT_BUDGET = 50 * 1024 * 1024
HASH_BLOCK = 64 * 1024
_quote = json.encoder.encode_basestring_ascii
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Stopped(Exception):  # noqa: N818  (not an error: nobody waits for the listing any more)
    """The client is gone."""


class Options:
    """What a listing is asked for. `stopped` may be set from elsewhere to end the walk."""

    def __init__(self, fields: Fields) -> None:
        self.path = tidy(fields.path("path", "/"))
        self.nested = fields.flag("nested")
        self.flatten = fields.flag("flatten")
        self.light = fields.flag("light")
        self.with_hash = fields.flag("include_hash")
        self.with_content = fields.flag("include_content")
        self.with_extensions = fields.flag("include_extensions")
        self.code_only = fields.flag("code_files_only")
        self.gitignore = fields.flag("use_gitignore", default=True)
        self.depth = fields.integer("max_depth", DEFAULT_DEPTH, 1, MAX_DEPTH)
        self.filter = fields.text("path_filter", "", max_length=1000).lower()
        self.extensions = frozenset(
            item.lower().removeprefix("*").removeprefix(".")
            for item in fields.commas("include_ext")
        )
        self.ignored = Rules(fields.commas("ignore_patterns"))
        self.budget = fields.integer("max_content_budget", CONTENT_BUDGET, 0, CONTENT_BUDGET)
        self.stopped = False

    @property
    def files_only(self) -> bool:
        """Whether a flat recursive listing shows no directories: they would match nothing."""
        return self.code_only or bool(self.extensions)

    def wanted(self, path: str, name: str, *, folder: bool) -> bool:
        """Whether an entry passes the filters (not the ignore rules)."""
        if self.filter and self.filter not in path.lower():
            return False
        if folder:
            return True
        if self.code_only and not is_code(name):
            return False
        return not self.extensions or extension(name)[1:].lower() in self.extensions


class Listing:
    """A walk and its result. `count` entries were shown; `truncated` at the cap of 50,000."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.count = 0
        self.truncated = False
        self._base = "" if options.path == "/" else options.path

    # -- one entry

    def _open(self, path: str, entry: os.DirEntry[str], dir_fd: int, *, folder: bool) -> str:
        """The JSON of an entry without its closing brace."""
        options = self.options
        out = f'{{"name":{_quote(entry.name)},"path":{_quote(f"{self._base}/{path}")}'
        if options.light and not (options.with_hash or options.with_content):
            kind_name = "directory" if folder else "symlink" if entry.is_symlink() else "file"
            out += f',"type":"{kind_name}"'
        else:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:  # it went away meanwhile
                info = None
            out += f',"type":"{kind(info.st_mode) if info else "file"}"'
            if info is not None and not options.light:
                when = modified(int(info.st_mtime))
                out += f',"size":{size_of(info)},"modified":"{when}"'
            if info is not None and stat.S_ISREG(info.st_mode):
                out += self._inside(entry.name, dir_fd)
        if options.with_extensions and not folder and (ending := extension(entry.name)):
            out += f',"extension":{_quote(ending)}'
        return out

    def _inside(self, name: str, dir_fd: int) -> str:
        """Hash and content of a regular file, as far as they are asked for."""
        if not (self.options.with_hash or self.options.with_content):
            return ""
        try:
            fd = os.open(name, _OPEN_FILE, dir_fd=dir_fd)
        except OSError:
            return ""
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                return ""
            out = ""
            if self.options.with_content and info.st_size <= self.options.budget:
                out = self._content(fd)
                os.lseek(fd, 0, os.SEEK_SET)
            return out + (f',"hash":"{self._hash(fd)}"' if self.options.with_hash else "")
        except OSError:
            return ""
        finally:
            os.close(fd)

    def _content(self, fd: int) -> str:
        """The text of a file; nothing when it is no UTF-8 or does not fit the budget."""
        data = read_all(fd, self.options.budget)
        if data is None or b"\0" in data:
            return ""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return ""
        self.options.budget -= len(data)
        return f',"content":{_quote(text)}'

    def _hash(self, fd: int) -> str:
        from hashlib import sha256  # noqa: PLC0415  (only when it is asked for)

        # No more than it had when it was opened: it may grow, and some in /proc have no end.
        total, left = sha256(), os.fstat(fd).st_size
        while left and (block := os.read(fd, min(left, HASH_BLOCK))):
            total.update(block)
            left -= len(block)
            self._check()
        return total.hexdigest()

    def _check(self) -> None:
        if self.options.stopped:
            raise Stopped

    # -- directories

    def _children(
        self, fd: int, prefix: str, scopes: Scopes, *, ordered: bool
    ) -> Iterator[tuple[os.DirEntry[str], str, bool]]:
        """(entry, relative path, is a directory) of what no rule hides."""
        options = self.options
        with os.scandir(fd) as found:
            entries: Iterable[os.DirEntry[str]] = found
            if ordered:
                entries = sorted(islice(found, ENTRY_LIMIT + 1), key=lambda entry: entry.name)
            for entry in entries:
                self._check()
                name = entry.name
                path = prefix + name
                try:
                    folder = entry.is_dir(follow_symlinks=False)
                except OSError:
                    folder = False
                if options.ignored and options.ignored.match(path, name, folder=folder):
                    continue
                if options.gitignore and scopes.ignored(path, name, folder=folder):
                    continue
                yield entry, path, folder

    def _full(self) -> bool:
        if self.count >= ENTRY_LIMIT:
            self.truncated = True
        return self.truncated

    def _walk(
        self, fd: int, prefix: str, scopes: Scopes, depth: int, *, ordered: bool, tree: bool
    ) -> Iterator[str]:
        """Pieces of JSON: whole entries, or for a tree entries with their children inside."""
        options = self.options
        if options.gitignore:
            scopes = scopes.enter(fd, len(prefix))
        closed = () if prefix else pseudo_below(fd)
        for entry, path, folder in self._children(fd, prefix, scopes, ordered=ordered):
            if self._full():
                return
            shown = options.wanted(path, entry.name, folder=folder)
            descend = (
                folder and options.nested and depth < options.depth and entry.name not in closed
            )
            if folder and options.nested and not tree and options.files_only:
                shown = False
            if not descend:
                if shown and not (tree and folder and options.files_only):
                    self.count += 1
                    yield self._open(path, entry, fd, folder=folder) + "}"
                continue
            below = self._below(entry.name, fd, path, scopes, depth, ordered=ordered, tree=tree)
            if tree:
                yield from self._branch(path, entry, fd, below, shown=shown)
            else:
                if shown:
                    self.count += 1
                    yield self._open(path, entry, fd, folder=True) + "}"
                yield from below

    def _branch(
        self, path: str, entry: os.DirEntry[str], fd: int, below: Iterator[str], *, shown: bool
    ) -> Iterator[str]:
        """A directory with its children, when it or something in it passes the filters."""
        before = self.count
        self.count += 1
        children = ",".join(below)
        if not children and (not shown or self.options.files_only):
            self.count = before
            return
        yield f'{self._open(path, entry, fd, folder=True)},"children":[{children}]}}'

    def _below(
        self,
        name: str,
        fd: int,
        path: str,
        scopes: Scopes,
        depth: int,
        *,
        ordered: bool,
        tree: bool,
    ) -> Iterator[str]:
        """What is inside a directory; nothing when it cannot be opened."""
        try:
            inner = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        except OSError:
            return
        try:
            yield from self._walk(inner, f"{path}/", scopes, depth + 1, ordered=ordered, tree=tree)
        finally:
            os.close(inner)

    def entries(self, *, ordered: bool, tree: bool) -> Iterator[str]:
        """The JSON of the entries at the top (of all entries, unless `tree`).

        Raises:
            ApiError: 404, or 400 when the path is no directory.
            Stopped: `options.stopped` was set.
        """
        with ExitStack() as stack:
            fd = stack.enter_context(opened_directory(self.options.path))
            scopes = Scopes()
            if self.options.gitignore:
                scopes = Scopes.above(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
            yield from self._walk(fd, "", scopes, 1, ordered=ordered, tree=tree)

    def document(self) -> bytes:
        """The whole answer of `GET /files`."""
        tree = self.options.nested and not self.options.flatten
        out = bytearray(b'{"success":true,"path":' + _quote(self.options.path).encode())
        out += b',"entries":['
        first = len(out)
        for piece in self.entries(ordered=True, tree=tree):
            if len(out) > first:
                out += b","
            out += piece.encode("ascii")
        out += b'],"count":%d' % self.count
        out += b',"truncated":true}' if self.truncated else b"}"
        return bytes(out)
