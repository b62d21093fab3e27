"""Users of this host, and becoming one of them."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass


class UnknownUserError(Exception):
    """A user named in the settings does not exist; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers of a user and a group."""

    uid: int
    gid: int


def identity_of(user: str) -> Identity:
    """The numbers of a user and its own group.

    Raises:
        UnknownUserError: there is no such user.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise UnknownUserError(
            f"there is no user {user!r}; make it with: adduser --system --group {user}"
        ) from None
    return Identity(entry.pw_uid, entry.pw_gid)


def become(user: str, home: str) -> None:
    """Give up root for a user, for good; nothing when not root.

    Raises:
        UnknownUserError: there is no such user.
    """
    if os.geteuid() != 0:
        return
    found = identity_of(user)
    os.setgroups([found.gid])
    os.setresgid(found.gid, found.gid, found.gid)
    os.setresuid(found.uid, found.uid, found.uid)
    os.environ["HOME"] = home
