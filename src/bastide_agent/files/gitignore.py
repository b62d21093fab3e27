"""Ignore rules as git reads them (gitignore(5)); also used for `ignore_patterns`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable

from bastide_agent.pattern import compiled

FILE_LIMIT = 256 * 1024  # bytes of one ignore file
_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": " \\t", "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~",
    "punct": "!-/:-@\\[-`{-~", "space": " \\t\\n\\r\\f\\v", "upper": "A-Z", "xdigit": "0-9a-fA-F",
}  # fmt: skip
_WILD = re.compile(r"[*?\[\\]")


def _bracket(pattern: str, at: int) -> tuple[str, int] | None:
    """The regular expression of a `[...]` that begins at `at`, and the place behind it."""
    index = at + 1
    negated = pattern[index : index + 1] in ("!", "^")
    index += negated
    out = ""
    begin = index
    while index < len(pattern):
        if pattern[index] == "]" and index > begin:
            # A slash is never matched by a class, nor is anything by an empty one.
            positive = f"(?!/)[{out}]" if out else "(?!)"
            return (f"[^/{out}]" if negated else positive), index + 1
        if pattern.startswith("[:", index):
            name, close, _ = pattern[index + 2 :].partition(":]")
            if not close or name not in _CLASSES:
                return None
            out += _CLASSES[name]
            index += len(name) + 4
            continue
        low, index = _character(pattern, index)
        high = low
        if pattern[index : index + 1] == "-" and pattern[index + 1 : index + 2] not in ("", "]"):
            high, index = _character(pattern, index + 1)
        if not low or not high:
            return None
        out += re.escape(low)
        if low < high:
            out += f"-{re.escape(high)}"
    return None


def _character(pattern: str, index: int) -> tuple[str, int]:
    """The character at a place, an escaped one without its backslash, and the place behind."""
    index += pattern[index] == "\\"
    return pattern[index : index + 1], index + 1


def _component(pattern: str) -> str | None:
    """One part of a path as a regular expression; None when it can match nothing.

    Of all places where the text between two stars fits, the first is as good as any (an atomic
    group says so), so that no pattern can make matching slow.
    """
    pieces = [""]
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*":
            if index < 2 or pattern[index - 2] != "*" or pieces[-1]:
                pieces.append("")
        elif char == "?":
            pieces[-1] += "[^/]"
        elif char == "[":
            found = _bracket(pattern, index - 1)
            if found is None:
                return None
            pieces[-1] += found[0]
            index = found[1]
        elif char == "\\":
            if index >= len(pattern):
                return None
            pieces[-1] += re.escape(pattern[index])
            index += 1
        else:
            pieces[-1] += re.escape(char)
    first, *middle = pieces
    last = f"[^/]*{middle.pop()}" if middle else ""
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle) + last


def translate(pattern: str) -> str | None:
    """A pattern as a regular expression for a whole path; None when it can match nothing."""
    segments: list[list[str]] = [[]]
    parts = pattern.split("/")
    for part in parts:
        if len(part) > 1 and not part.strip("*"):
            segments.append([])
            continue
        expression = _component(part)
        if expression is None:
            return None
        segments[-1].append(expression)
    first, *others = ["/".join(segment) for segment in segments]
    if not others:
        return first
    out = f"{first}/" if first else ""
    *middle, last = others
    out += "".join(f"(?>(?:[^/]*/)*?{segment}/)" for segment in middle if segment)
    return out + (f"(?:[^/]*/)*{last}" if last else ".+")


def _strip_blanks(line: str) -> str:
    """Without trailing blanks, except an escaped one."""
    end = len(line)
    while end and line[end - 1] == " ":
        slashes = 0
        while end - 2 - slashes >= 0 and line[end - 2 - slashes] == "\\":
            slashes += 1
        if slashes % 2:
            break
        end -= 1
    return line[:end]


class _Group:
    """Neighbouring patterns of the same sense, so that their order does not matter."""

    def __init__(self, *, ignored: bool) -> None:
        self.ignored = ignored
        self._plain: set[str] = set()  # names without wildcards
        self._plain_folders: set[str] = set()
        # By (compared with the whole path, for directories only)
        self._parts: dict[tuple[bool, bool], list[str]] = {}
        self._compiled: list[tuple[bool, bool, re.Pattern[str]]] = []

    def add(self, pattern: str, *, folder: bool, anchored: bool) -> None:
        if not anchored and _WILD.search(pattern) is None:
            (self._plain_folders if folder else self._plain).add(pattern)
            return
        expression = translate(pattern)
        if expression is not None:
            self._parts.setdefault((anchored, folder), []).append(f"(?:{expression})")

    def seal(self) -> None:
        self._compiled = [
            (on_path, folder, compiled("|".join(parts), re.DOTALL))
            for (on_path, folder), parts in self._parts.items()
        ]
        self._parts.clear()

    def match(self, path: str, name: str, *, folder: bool) -> bool:
        if name in self._plain or (folder and name in self._plain_folders):
            return True
        return any(
            expression.fullmatch(path if on_path else name) is not None
            for on_path, folders_only, expression in self._compiled
            if folder or not folders_only
        )


class Rules:
    """The patterns of one ignore file; the last that matches decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._groups: list[_Group] = []
        for line in lines:
            self._add(line)
        for group in self._groups:
            group.seal()
        self._groups.reverse()

    def __bool__(self) -> bool:
        return bool(self._groups)

    def _add(self, line: str) -> None:
        pattern = _strip_blanks(line)
        if not pattern or pattern.startswith("#"):
            return
        negated = pattern.startswith("!")
        pattern = pattern[negated:]
        folder = pattern.endswith("/")
        pattern = pattern[:-1] if folder else pattern
        anchored = "/" in pattern
        pattern = pattern.removeprefix("/")
        if not pattern:
            return
        if not self._groups or self._groups[-1].ignored is negated:
            self._groups.append(_Group(ignored=not negated))
        self._groups[-1].add(pattern, folder=folder, anchored=anchored)

    def match(self, path: str, name: str, *, folder: bool) -> bool | None:
        """Whether an entry is ignored; None when no pattern speaks of it.

        `path` is relative to the directory of the ignore file, `name` its last part.
        """
        for group in self._groups:
            if group.match(path, name, folder=folder):
                return group.ignored
        return None


def parse(raw: bytes) -> Rules:
    """The rules of an ignore file."""
    text = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return Rules(line.removesuffix("\r") for line in text.split("\n"))


def read_rules(name: str, dir_fd: int | None) -> Rules | None:
    """The rules of a file, or None when there are none. A link is not followed, as in git."""
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd
        )
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        rules = parse(os.read(fd, FILE_LIMIT))
    except OSError:
        return None
    finally:
        os.close(fd)
    return rules or None


def _exists(path: str, dir_fd: int | None) -> bool:
    try:
        os.lstat(path, dir_fd=dir_fd)
    except OSError:
        return False
    return True


class Scopes:
    """The rules in force in a directory: those of its repository from the top down."""

    __slots__ = ("_scopes",)

    def __init__(self, scopes: tuple[tuple[Rules, int, str], ...] = ()) -> None:
        # (rules, how much of a path below the listed directory to cut, what to put before it)
        self._scopes = scopes

    @classmethod
    def above(cls, folder: str) -> Scopes:
        """The rules that its parents lay on a directory (a real path) inside a repository."""
        if folder == "/" or _exists(f"{folder}/.git", None):
            return cls()
        parts = folder.strip("/").split("/")
        for depth in range(len(parts) - 1, -1, -1):
            top = "/" + "/".join(parts[:depth])
            if _exists(f"{top}/.git", None):
                scopes: list[tuple[Rules, int, str]] = []
                for level in range(depth, len(parts)):
                    place = "/" + "/".join(parts[:level])
                    prefix = "/".join(parts[level:]) + "/"
                    names = [".git/info/exclude"] if level == depth else []
                    for name in (*names, ".gitignore"):
                        rules = read_rules(f"{place}/{name}", None)
                        if rules is not None:
                            scopes.append((rules, 0, prefix))
                return cls(tuple(scopes))
        return cls()

    def enter(self, dir_fd: int, cut: int) -> Scopes:
        """The rules inside a directory; `cut` is the length of its relative path with a slash."""
        scopes = self._scopes
        if _exists(".git", dir_fd):  # a repository of its own
            exclude = read_rules(".git/info/exclude", dir_fd)
            scopes = () if exclude is None else ((exclude, cut, ""),)
        rules = read_rules(".gitignore", dir_fd)
        if rules is not None:
            scopes = (*scopes, (rules, cut, ""))
        return self if scopes is self._scopes else Scopes(scopes)

    def ignored(self, path: str, name: str, *, folder: bool) -> bool:
        """Whether an entry is ignored; `path` is relative to the listed directory."""
        for rules, cut, prefix in reversed(self._scopes):
            verdict = rules.match(prefix + path[cut:], name, folder=folder)
            if verdict is not None:
                return verdict
        return False
