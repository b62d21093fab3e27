"""What is prepared once for all tests of this host: runtime, images, agent bundle."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

CACHE = Path(os.environ.get("BASTIDE_TEST_CACHE", "/var/tmp/bastide-test-cache"))


def own_cache(path: Path = CACHE) -> Path:
    """The directory of the cache, made when it is not there; only root can write to it.

    Root runs programs in it, and its name is known to everyone who may write beside it.

    Raises:
        PermissionError: somebody else made it, or may write to it.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o755)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise PermissionError(
            f"{path} must be a directory of root's that nobody else can write to: look at who "
            "made it and remove it, or name another in BASTIDE_TEST_CACHE"
        )
    path.chmod(0o755)  # also with a narrow umask: the first processes of machines pass through
    return path
