"""Whom the main command runs as: an account of the image, by name or number."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence

LIMIT = 1024 * 1024  # bytes read of a file of accounts
LAST_ID = 65535
# Ends as the program itself: nothing of this stays in between.
BECOME = (
    "import os,sys;u,g,s,p=sys.argv[1:5];"
    "os.setgroups([int(i) for i in s.split(',') if i]);os.setgid(int(g));os.setuid(int(u));"
    "os.execv(p,sys.argv[5:])"
)


class NoAccountError(Exception):
    """The image has no such account."""


class Account:
    """Numbers and home of somebody."""

    __slots__ = ("gid", "groups", "home", "name", "uid")

    def __init__(self, uid: int, gid: int, groups: Sequence[int], home: str, name: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = list(groups)
        self.home = home
        self.name = name

    def command(self, program: str, argv: Sequence[str]) -> list[str]:
        """What to start, so that `program` runs as this account."""
        groups = ",".join(map(str, self.groups))
        numbers = [str(self.uid), str(self.gid), groups]
        return [sys.executable, "-I", "-S", "-c", BECOME, *numbers, program, *argv]


def find_account(user: str, users: str = "/etc/passwd", group: str = "/etc/group") -> Account:
    """The account that `name`, `number`, or either with `:group` after it stands for.

    A number needs no entry in the image's files, as elsewhere.

    Raises:
        NoAccountError: there is none.
    """
    wanted, colon, wanted_group = user.partition(":")
    number = _number(wanted)
    uid, gid, home, name = number, 0, "/", wanted
    for fields in _entries(users, 7):
        if fields[0] == wanted or (number is not None and _number(fields[2]) == number):
            uid, gid = _number(fields[2]), _number(fields[3]) or 0
            home, name = fields[5] or "/", fields[0]
            break
    if uid is None:
        raise NoAccountError(f"the image has no user {wanted!r}")
    groups = [gid]
    if colon:
        found = _group(wanted_group, group)
        if found is None:
            raise NoAccountError(f"the image has no group {wanted_group!r}")
        gid, groups = found, [found]
    else:
        members = (fields for fields in _entries(group, 4) if name in fields[3].split(","))
        groups += [number for number in (_number(fields[2]) for fields in members) if number]
    return Account(uid, gid, sorted(set(groups)), home, name)


def _group(wanted: str, path: str) -> int | None:
    for fields in _entries(path, 4):
        if fields[0] == wanted:
            return _number(fields[2])
    return _number(wanted)


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= LAST_ID:
        return int(text)
    return None


def _entries(path: str, width: int) -> Iterator[list[str]]:
    """The lines of a file of accounts, which may be anything under this name."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return
    try:
        raw = os.read(fd, LIMIT) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return
    finally:
        os.close(fd)
    for line in os.fsdecode(raw).splitlines():
        fields = line.split(":")
        if len(fields) == width:
            yield fields
