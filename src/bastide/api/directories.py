"""The directories the api writes to, made before it gives up root."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bastide.identity import identity_of
from bastide.settings import Settings


def make_directories(settings: Settings) -> None:
    """Make what is missing, each with the least rights that its users need.

    The state directory stays root's, so that the api can replace nothing of the node's. The
    directory of the socket is readable by the edge's group, which connects to it, and that of the
    bastion's map by the bastion's.

    Raises:
        UnknownUserError: one of the users is missing (only asked when root).
    """
    for path in (settings.state_dir, settings.run_dir):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    private = (
        settings.state_dir / "secrets",
        settings.state_dir / "db",
        settings.edge_dir,
        settings.archives_dir,
    )
    if os.geteuid() != 0:
        for path in (*private, settings.api_socket.parent, settings.bastion_map.parent):
            path.mkdir(mode=0o700, exist_ok=True)
        return
    api, edge = identity_of(settings.user), identity_of(settings.edge_user)
    for path in (settings.state_dir, settings.run_dir):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o011)  # unprivileged users pass through
    for path in private:
        _give(path, api.uid, api.gid, 0o700)
    _give(settings.api_socket.parent, api.uid, edge.gid, 0o2750)
    _give(settings.bastion_map.parent, api.uid, identity_of(settings.ssh_user).gid, 0o2750)


def _give(path: Path, uid: int, gid: int, mode: int) -> None:
    """Make a directory and hand it over; follows no link and touches nothing inside."""
    path.mkdir(mode=0o700, exist_ok=True)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(folder, uid, gid)
        os.fchmod(folder, mode)
    finally:
        os.close(folder)
