"""What the control plane says of SSH: on or off, who may enter, and the server's own key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bastide_agent.http.errors import invalid
from bastide_agent.http.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST_KEY_LIMIT = 16 * 1024  # characters
PASSWORD_LIMIT = 256  # characters of a password's hash
KEY_LIMIT = 16 * 1024  # characters of one authorized key
KEYS_LIMIT = 200


class Access:
    """`host_key` is a private key in OpenSSH's format, `keys` are lines of authorized_keys.

    `password_hash` is what crypt(3) reads, empty when there is no password.
    """

    __slots__ = ("enabled", "host_key", "keys", "password_hash")

    def __init__(
        self,
        *,
        enabled: bool,
        host_key: str = "",
        password_hash: str = "",
        keys: Sequence[str] = (),
    ) -> None:
        self.enabled = enabled
        self.host_key = host_key
        self.password_hash = password_hash
        self.keys = tuple(keys)

    @classmethod
    def of(cls, fields: Fields) -> Access:
        """From the body of `PUT /control/ssh`, or that part of the boot document.

        Raises:
            ApiError: 400 `validation_error`, naming the field.
        """
        if "enabled" not in fields:
            raise invalid("enabled", "enabled is required: true or false")
        if not fields.flag("enabled"):
            return cls(enabled=False)
        host_key = fields.text("host_key", max_length=HOST_KEY_LIMIT)
        password_hash = fields.text("password_hash", "", max_length=PASSWORD_LIMIT)
        if not password_hash.isprintable() or ":" in password_hash or " " in password_hash:
            raise invalid("password_hash", "password_hash must be a hash that crypt(3) reads")
        keys = fields.raw("keys") or []
        if not isinstance(keys, list) or len(keys) > KEYS_LIMIT:
            raise invalid("keys", f"keys must be a list of at most {KEYS_LIMIT} lines")
        for line in keys:
            if not isinstance(line, str) or len(line) > KEY_LIMIT or not line.isprintable():
                raise invalid("keys", "each of keys must be one line of authorized_keys")
        return cls(enabled=True, host_key=host_key, password_hash=password_hash, keys=keys)
