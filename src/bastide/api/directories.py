"""The directories the api writes to, made before it gives up root."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from bastide.settings import Settings


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


def make_directories(settings: Settings) -> None:
    """Make what is missing, each with the least rights that its users need.

    The state directory stays root's, so that the api can replace nothing of the node's. The
    directory of the socket is readable by the edge's group, which connects to it.

    Raises:
        UnknownUserError: the api's or the edge's user is missing (only asked when root).
    """
    for path in (settings.state_dir, settings.run_dir):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    private = (settings.state_dir / "secrets", settings.state_dir / "db", settings.edge_dir)
    if os.geteuid() != 0:
        for path in (*private, settings.api_socket.parent):
            path.mkdir(mode=0o700, exist_ok=True)
        return
    api, edge = identity_of(settings.user), identity_of(settings.edge_user)
    for path in (settings.state_dir, settings.run_dir):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o011)  # unprivileged users pass through
    for path in private:
        _give(path, api.uid, api.gid, 0o700)
    _give(settings.api_socket.parent, api.uid, edge.gid, 0o2750)


def become(settings: Settings) -> None:
    """Give up root for the api's user, for good; nothing when not root.

    Raises:
        UnknownUserError: there is no such user.
    """
    if os.geteuid() != 0:
        return
    user = identity_of(settings.user)
    os.setgroups([user.gid])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    os.environ["HOME"] = str(settings.state_dir)


def _give(path: Path, uid: int, gid: int, mode: int) -> None:
    """Make a directory and hand it over; follows no link and touches nothing inside."""
    path.mkdir(mode=0o700, exist_ok=True)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(folder, uid, gid)
        os.fchmod(folder, mode)
    finally:
        os.close(folder)
