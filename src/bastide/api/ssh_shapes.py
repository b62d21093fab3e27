"""SSH of a workspace as it is on the wire (spec 4.5)."""

from __future__ import annotations

from typing import Any

from bastide.domain.instant import iso
from bastide.domain.ssh import USER, AuthorizedKey
from bastide.services.ssh import SshView
from bastide.settings import Settings

DEFAULT_PORT = 22
_PUBLIC_KEY_BYTES = 1024


def status(view: SshView, settings: Settings) -> dict[str, Any]:
    """What `GET /workspace/:id/ssh` tells."""
    config = view.config
    password = config.password if config else None
    enabled = config is not None and config.enabled
    return {
        "supported": True,
        "ssh_enabled": enabled,
        "ssh_id": view.ssh_id,
        "ssh_password_changed": password is not None and password.chosen,
        "ssh_key_set": config is not None and bool(config.keys),
        "auth_methods": ["password", "publickey"],
        "password_auth_enabled": password is not None,
        "password_affects_desktop": False,
        "connection": connection(view.ssh_id, settings) if enabled and view.ssh_id else None,
        "host_key": _host_key(view),
        "keys": keys(view),
    }


def connection(ssh_id: str, settings: Settings) -> dict[str, Any]:
    """How to connect; the commands work as they are printed."""
    bastion = told_bastion(settings)
    jump, target = f"-J {USER}@{bastion}", f"{USER}@{ssh_id}"
    return {
        "user": USER,
        "host": ssh_id,
        "bastion": bastion,
        "command": f"ssh {target} {jump}",
        "scp_upload": f"scp {jump} file.txt {target}:/path/",
        "scp_download": f"scp {jump} {target}:/path/file.txt .",
        "bastion_host_key": bastion_key(settings),
    }


def told_bastion(settings: Settings) -> str:
    """Where people are told that the bastion is: `host`, or `host:port` if it is not 22."""
    host, _, port = (settings.ssh.bastion or settings.listen.ssh).rpartition(":")
    if not host:
        host, port = port, str(DEFAULT_PORT)
    return host if port == str(DEFAULT_PORT) else f"{host}:{port}"


def bastion_key(settings: Settings) -> str | None:
    """The bastion's own key as in known_hosts; None until it has one."""
    try:
        with (settings.bastion_dir / "host_key.pub").open() as file:
            words = file.read(_PUBLIC_KEY_BYTES).split()
    except (OSError, ValueError):
        return None
    return " ".join(words[:2]) if len(words) >= 2 else None


def keys(view: SshView) -> list[dict[str, Any]]:
    """The keys that open the workspace."""
    return [key(each) for each in (view.config.keys if view.config else ())]


def key(known: AuthorizedKey) -> dict[str, Any]:
    """One of them."""
    return {
        "fingerprint": known.fingerprint,
        "type": known.type,
        "public_key": known.line,
        "comment": known.comment,
        "added_at": iso(known.added_at),
    }


def _host_key(view: SshView) -> dict[str, Any] | None:
    """The workspace's own key, which clients should see."""
    if view.config is None:
        return None
    own = view.config.host_key
    return {"fingerprint": own.fingerprint, "public_key": own.public}
