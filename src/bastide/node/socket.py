"""The unix socket the node listens on: made here, so that nobody else can reach it for a moment."""

from __future__ import annotations

import fcntl
import grp
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bastide.node.errors import Conflict, NotReady


@contextmanager
def only_node(run_dir: Path) -> Iterator[None]:
    """Be the only node of this `run_dir` while the block runs.

    Raises:
        Conflict: another one runs.
    """
    run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (run_dir / "node.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another bastide-node runs on {run_dir}: stop it first") from None
        yield


def listen(path: Path, group: str) -> socket.socket:
    """A listening socket at `path`, 0660 and of `group`; an old one there is replaced.

    Raises:
        NotReady: there is no such group.
    """
    try:
        owner = grp.getgrnam(group).gr_gid
    except KeyError:
        raise NotReady(f"there is no group {group}: script/up makes it") from None
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listening.bind(str(draft))
    finally:
        os.umask(before)
    os.chown(draft, 0, owner)
    draft.chmod(0o660)
    listening.listen(512)
    draft.replace(path)
    return listening
