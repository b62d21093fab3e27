"""The agent's bundle as a read-only file system in a file, for a guest's block device."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from pathlib import Path

from bastide.node.errors import NotReady

_TIMEOUT = 120.0
_packing = threading.Lock()


def packed(bundle: Path) -> Path:
    """The file beside the directory `bundle`, made now if it is not there. Blocks.

    Raises:
        NotReady: it cannot be made.
    """
    file = bundle.with_name(f"{bundle.name}.erofs")
    with _packing:
        if file.exists():
            return file
        # every id is root's inside, whoever prepared this
        command = ["mkfs.erofs", "--quiet", "--all-root", "-T0"]
        descriptor, draft = tempfile.mkstemp(prefix=".pack-", dir=bundle.parent)
        os.close(descriptor)
        try:
            subprocess.run(
                [*command, draft, bundle],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                check=True,
            )
            Path(draft).chmod(0o644)
            Path(draft).replace(file)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotReady(f"the agent bundle cannot be packed for guests: {error}") from error
        finally:
            Path(draft).unlink(missing_ok=True)
    return file
