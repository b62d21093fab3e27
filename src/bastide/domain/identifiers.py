"""Identifiers of accounts, keys, workspaces, operations and archives (spec control-plane 1.6)."""

from __future__ import annotations

import re
import secrets
from typing import Final

ACCOUNT: Final = "acc"
KEY: Final = "key"
WORKSPACE: Final = "ws"
OPERATION: Final = "op"
ARCHIVE: Final = "arc"


def new_id(prefix: str) -> str:
    """A fresh identifier: `prefix`, an underscore and 12 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(6)}"


def is_id(prefix: str, text: str) -> bool:
    """Whether `text` could be one of these."""
    return re.fullmatch(rf"{prefix}_[0-9a-f]{{12}}", text, re.ASCII) is not None
