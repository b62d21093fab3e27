"""SSH into a workspace: names, keys, passwords, and what is kept of them (spec 4.5)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import string
from datetime import datetime
from typing import Final

import bcrypt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from pydantic import BaseModel, ConfigDict, Field

USER: Final = "root"
SSH_ID: Final = r"[a-z][a-z0-9]{5}"
MAX_KEYS: Final = 50
MAX_KEY: Final = 8192
MAX_COMMENT: Final = 200
PASSWORD_CHARACTERS: Final = (8, 72)
"""At least, and at most in bytes of UTF-8: bcrypt looks at no more."""
MIN_RSA_BITS: Final = 2048

# Security keys, which `cryptography` cannot check, are taken by the shape of what they hold.
_HARDWARE = ("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")
KEY_TYPES: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    *_HARDWARE,
)
_LETTERS = "abcdefghijkmnpqrstuvwxyz"  # without those that are taken for digits
_ID = _LETTERS + "23456789"
_PASSWORD = _LETTERS + _LETTERS.upper() + "23456789"
_PASSWORD_LENGTH = 12
_WORK = 10  # of bcrypt: 2^10 rounds


class AuthorizedKey(BaseModel):
    """A public key that opens a workspace; `fingerprint` as `ssh-keygen -l` shows it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    fingerprint: str
    type: str
    key: str = Field(description="base64 of the key, as in authorized_keys")
    comment: str = ""
    added_at: datetime

    @property
    def line(self) -> str:
        """As a line of authorized_keys."""
        return f"{self.type} {self.key} {self.comment}".rstrip()


class HostKey(BaseModel):
    """A server's own key: `private` in OpenSSH's format, `public` as in known_hosts."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    private: str = Field(repr=False)
    public: str
    fingerprint: str

    @classmethod
    def make(cls) -> HostKey:
        """A fresh one (Ed25519)."""
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        return cls(private=private, public=public, fingerprint=fingerprint(public.split()[1]))


class Password(BaseModel):
    """What is kept of a password.

    `hash` (bcrypt) is what the workspace's server checks. `proof` is what the bastion looks it up
    by: it does not know which workspace somebody wants who says a password, so this one is made
    with a key of the server in place of a salt. `chosen`: the owner's own, not a one-time one.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    hash: str = Field(repr=False)
    proof: str = Field(repr=False)
    chosen: bool = False


class SshConfig(BaseModel):
    """SSH of one workspace, as it is stored. The host key stays for the workspace's life."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    enabled: bool = False
    host_key: HostKey
    password: Password | None = None
    keys: tuple[AuthorizedKey, ...] = ()

    @classmethod
    def make(cls, *, enabled: bool) -> SshConfig:
        """Of a workspace that had none: nobody may enter yet."""
        return cls(enabled=enabled, host_key=HostKey.make())


def new_ssh_id() -> str:
    """The short name of a workspace in SSH commands; never one that reads as a number."""
    return secrets.choice(_LETTERS) + "".join(secrets.choice(_ID) for _ in range(5))


def new_password() -> str:
    """A one-time password: 12 letters and digits, 69 bits."""
    while True:
        found = "".join(secrets.choice(_PASSWORD) for _ in range(_PASSWORD_LENGTH))
        kinds = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
        if all(set(found) & set(kind) for kind in kinds):
            return found


def check_password(value: str) -> str:
    """The password, if it can be used.

    Raises:
        ValueError: it is too short, too long, or holds what no terminal can send.
    """
    least, most = PASSWORD_CHARACTERS
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    if len(value) < least or len(value.encode()) > most:
        raise ValueError(f"must have {least} to {most} characters")
    return value


def hash_password(password: str, key: str, *, chosen: bool) -> Password:
    """What to keep of a password. Blocks for a tenth of a second: call it in a thread."""
    return Password(
        hash=bcrypt.hashpw(password.encode(), bcrypt.gensalt(_WORK)).decode(),
        proof=password_proof(password, key),
        chosen=chosen,
    )


def password_proof(password: str, key: str) -> str:
    """What a password is looked up by (hex); `key` is the server's. Blocks, takes 16 MiB."""
    return hashlib.scrypt(password.encode(), salt=key.encode(), n=2**14, r=8, p=1, dklen=32).hex()


def fingerprint(key: str) -> str:
    """The fingerprint of a key in base64."""
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def read_public_key(text: str, at: datetime) -> AuthorizedKey:
    """A public key as people paste it: `ssh-ed25519 AAAA… comment`.

    Raises:
        ValueError: it is none, or one that is not safe; the message says what to send.
    """
    text = text.strip()
    if "PRIVATE KEY" in text:
        raise ValueError("is a private key, which nobody should be sent; send the .pub file")
    if len(text) > MAX_KEY or not text.isprintable():
        raise ValueError(f"must be one line of at most {MAX_KEY} characters")
    kind, _, rest = text.partition(" ")
    if kind not in KEY_TYPES:
        raise ValueError(f"must begin with the type of the key, one of {', '.join(KEY_TYPES)}")
    key, _, comment = rest.strip().partition(" ")
    try:
        blob = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must hold the key in base64 after its type") from None
    if kind in _HARDWARE:
        _check_shape(blob, kind)
    else:
        _check_key(kind, key)
    return AuthorizedKey(
        fingerprint=fingerprint(key),
        type=kind,
        key=key,
        comment=comment.strip()[:MAX_COMMENT],
        added_at=at,
    )


def _check_key(kind: str, key: str) -> None:
    try:
        found = load_ssh_public_key(f"{kind} {key}".encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"is no {kind} key: it is damaged or cut off") from None
    if isinstance(found, RSAPublicKey) and found.key_size < MIN_RSA_BITS:
        raise ValueError(f"is an RSA key of less than {MIN_RSA_BITS} bits; make an Ed25519 key")


def _check_shape(blob: bytes, kind: str) -> None:
    """A list of strings of which the first is the type."""
    parts: list[bytes] = []
    while blob:
        size = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + size:
            raise ValueError(f"is no {kind} key: it is damaged or cut off")
        parts.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    if len(parts) < 3 or parts[0] != kind.encode():
        raise ValueError(f"is no {kind} key: it is damaged or cut off")
