"""The agent bundle as the read-only disk of guests."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from bastide.node.errors import NotReady

_TIMEOUT = 120.0


def bundle_disk(bundle: Path, home: Path) -> Path:
    """The erofs file of a bundle, `home/NAME.erofs`; made once. Blocks for about a second then.

    It is not compressed: every guest unpacks for itself, and an emulated one slowly.

    Raises:
        NotReady: it cannot be made.
    """
    target = home / f"{bundle.name}.erofs"
    if target.is_file():
        return target
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".bundle-", dir=home)
    os.close(descriptor)
    draft = Path(name)
    try:
        draft.unlink()
        done = subprocess.run(
            ["mkfs.erofs", "--quiet", "--all-root", str(draft), str(bundle)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
        if done.returncode != 0:
            reason = (done.stderr or done.stdout)[-500:].decode(errors="replace").strip()
            raise NotReady(f"the agent bundle cannot be packed for guests: {reason}")
        draft.chmod(0o444)
        draft.rename(target)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReady(f"the agent bundle cannot be packed for guests: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return target
