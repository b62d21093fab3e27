"""The keys that sign tokens: one file each, of the api's user, made on first use.

Gateway tokens and the scoped tokens of the control plane have different keys, because the edge
holds the first and must not be able to make the second.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import stat
from pathlib import Path

from bastide.settings import Settings

_KEY = re.compile(r"[0-9a-f]{64}")
_GATEWAY = "gateway.key"
_CONTROL = "control.key"
_PASSWORDS = "ssh-passwords.key"


class KeyFileError(Exception):
    """The key file cannot be used; the message says where and why."""


def gateway_key(settings: Settings) -> str:
    """The signing key of gateway tokens: 64 hex digits, used as text (HS256).

    Kept in `state_dir/secrets/gateway.key`, mode 0600, owned by the api's user. Two processes
    that ask for a missing key at the same moment get the same one. Root may call this for the
    edge: it follows no link there.

    Raises:
        KeyFileError: the file is no regular file or holds no key.
    """
    return _key(settings, _GATEWAY)


def control_key(settings: Settings) -> str:
    """The signing key of scoped tokens (POST /tokens), kept and made like `gateway_key`.

    Raises:
        KeyFileError: the file is no regular file or holds no key.
    """
    return _key(settings, _CONTROL)


def password_key(settings: Settings) -> str:
    """What SSH passwords are hashed with for the bastion, kept and made like `gateway_key`.

    Removing it makes every SSH password useless until it is set anew.

    Raises:
        KeyFileError: the file is no regular file or holds no key.
    """
    return _key(settings, _PASSWORDS)


def _key(settings: Settings, name: str) -> str:
    """The key in the file `name`, made if it is not there."""
    directory = settings.state_dir / "secrets"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _own(folder, settings.user)
        try:
            return _read(folder, directory / name)
        except FileNotFoundError:
            _create(folder, name, settings.user)
            return _read(folder, directory / name)
    finally:
        os.close(folder)


def _create(folder: int, name: str, user: str) -> None:
    """Write a new key beside its name and link it there, unless another process was first."""
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        try:
            _own(handle, user)
            os.write(handle, secrets.token_hex(32).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return
        os.fsync(folder)
    finally:
        os.unlink(temporary, dir_fd=folder)


def _read(folder: int, where: Path) -> str:
    try:
        handle = os.open(
            where.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"{where} cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise KeyFileError(f"{where} is no regular file; remove it to get a new key")
        text = os.read(handle, 256).decode("ascii", "replace").strip()
    finally:
        os.close(handle)
    if not _KEY.fullmatch(text):
        raise KeyFileError(f"{where} must hold 64 hex digits; remove it to get a new key")
    return text


def _own(handle: int, user: str) -> None:
    """Give what root has just opened to the api's user, where there is such a user."""
    if os.geteuid() != 0:
        return
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return
    os.fchown(handle, entry.pw_uid, entry.pw_gid)
