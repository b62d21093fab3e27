"""SSH of a workspace: what the API answers, the calls, and both clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from bastide.client._call import LONG_TIMEOUT, Call, part
from bastide.client._models import Model
from bastide.client._session import AsyncSession, Session


class SshKey(Model):
    """A public key that opens a workspace."""

    fingerprint: str
    type: str = ""
    public_key: str = ""
    comment: str = ""
    added_at: datetime | None = None


class SshHostKey(Model):
    """A server's own key, as in known_hosts."""

    fingerprint: str
    public_key: str


class SshConnection(Model):
    """How to connect; `command` works as it is printed."""

    user: str
    host: str
    bastion: str
    command: str
    scp_upload: str = ""
    scp_download: str = ""
    bastion_host_key: str | None = None


class SshStatus(Model):
    """SSH of a workspace. `ssh_password` is given by `enable` alone, and once."""

    ssh_enabled: bool
    ssh_id: str | None = None
    ssh_password: str | None = Field(None, repr=False)
    ssh_password_changed: bool = False
    ssh_key_set: bool = False
    connection: SshConnection | None = None
    host_key: SshHostKey | None = None
    keys: list[SshKey] = Field(default_factory=list)


def _path(workspace: str, rest: str = "") -> str:
    return f"/workspace/{part(workspace)}/ssh{rest}"


def _status(workspace: str) -> Call[SshStatus]:
    return Call("GET", _path(workspace), SshStatus.model_validate)


def _switch(workspace: str, verb: str) -> Call[SshStatus]:
    # A password that was lost on the way is no use: asking again makes another.
    return Call(
        "POST", _path(workspace, f"/{verb}"), SshStatus.model_validate, timeout=LONG_TIMEOUT
    )


def _set(workspace: str, what: str, body: Mapping[str, Any]) -> Call[SshStatus]:
    return Call("POST", _path(workspace, f"/{what}"), SshStatus.model_validate, json=body)


def _keys(workspace: str) -> Call[list[SshKey]]:
    return Call("GET", _path(workspace, "/keys"), _read_keys)


def _remove(workspace: str, fingerprint: str) -> Call[list[SshKey]]:
    return Call("DELETE", _path(workspace, f"/keys/{part(fingerprint)}"), _read_keys)


def _read_keys(body: Mapping[str, Any]) -> list[SshKey]:
    return [SshKey.model_validate(key) for key in body["keys"]]


class Ssh:
    """SSH into workspaces, each named by id or slug."""

    def __init__(self, api: Session) -> None:
        self._api = api

    def status(self, workspace: str) -> SshStatus:
        """Whether it is enabled, and how to connect."""
        return self._api.send(_status(workspace))

    def enable(self, workspace: str) -> SshStatus:
        """Open it; the answer has a one-time password unless the owner chose one."""
        return self._api.send(_switch(workspace, "enable"))

    def disable(self, workspace: str) -> SshStatus:
        """Close it; sessions end."""
        return self._api.send(_switch(workspace, "disable"))

    def set_password(self, workspace: str, password: str) -> SshStatus:
        """Replace the password."""
        return self._api.send(_set(workspace, "password", {"password": password}))

    def add_key(self, workspace: str, public_key: str) -> SshStatus:
        """Let a key in, beside those that are in already."""
        return self._api.send(_set(workspace, "key", {"public_key": public_key}))

    def keys(self, workspace: str) -> list[SshKey]:
        """The keys that open it."""
        return self._api.send(_keys(workspace))

    def remove_key(self, workspace: str, fingerprint: str) -> list[SshKey]:
        """Let a key in no more; those that are left."""
        return self._api.send(_remove(workspace, fingerprint))


class AsyncSsh:
    """SSH into workspaces, each named by id or slug."""

    def __init__(self, api: AsyncSession) -> None:
        self._api = api

    async def status(self, workspace: str) -> SshStatus:
        """Whether it is enabled, and how to connect."""
        return await self._api.send(_status(workspace))

    async def enable(self, workspace: str) -> SshStatus:
        """Open it; the answer has a one-time password unless the owner chose one."""
        return await self._api.send(_switch(workspace, "enable"))

    async def disable(self, workspace: str) -> SshStatus:
        """Close it; sessions end."""
        return await self._api.send(_switch(workspace, "disable"))

    async def set_password(self, workspace: str, password: str) -> SshStatus:
        """Replace the password."""
        return await self._api.send(_set(workspace, "password", {"password": password}))

    async def add_key(self, workspace: str, public_key: str) -> SshStatus:
        """Let a key in, beside those that are in already."""
        return await self._api.send(_set(workspace, "key", {"public_key": public_key}))

    async def keys(self, workspace: str) -> list[SshKey]:
        """The keys that open it."""
        return await self._api.send(_keys(workspace))

    async def remove_key(self, workspace: str, fingerprint: str) -> list[SshKey]:
        """Let a key in no more; those that are left."""
        return await self._api.send(_remove(workspace, fingerprint))
