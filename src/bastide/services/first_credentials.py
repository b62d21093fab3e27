"""The file that holds the first admin key, so that the operator can begin."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_LARGEST = 64 * 1024


class FirstCredentials(BaseModel):
    """What `bastide env` prints. Kept in a file of mode 0600."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    client_id: str
    client_secret: str = Field(repr=False)
    account_id: str
    api_url: str
    gateway_url: str

    def write(self, path: Path) -> None:
        """Put the file in place as a whole, readable by its owner alone."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o600), "w") as file:
                file.write(self.model_dump_json(indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> FirstCredentials | None:
        """What the file says; None when it is missing or unreadable as such."""
        try:
            with path.open("rb") as file:
                return cls.model_validate_json(file.read(_LARGEST))
        except (FileNotFoundError, ValidationError):
            return None
