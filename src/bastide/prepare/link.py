"""Links that name the directory in force among others of its kind."""

from __future__ import annotations

import os
from pathlib import Path


def point(link: Path, name: str) -> None:
    """Let `link` name the directory `name` beside it, in one step: it always names one."""
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(name)
    draft.replace(link)
