"""The boot document the node writes on standard input (docs/architecture.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from bastide_agent.kernel import MOST_SEED

DOCUMENT_LIMIT = 1024 * 1024
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_ENV = {"PATH": DEFAULT_PATH, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8"}


class BootError(Exception):
    """The boot document cannot be used; the message says why."""


GRACE = 5.0
"""Seconds in which all may end by itself, where the document does not say."""


class Port:
    """One of the agent's two ports: where to listen, and the token it accepts."""

    __slots__ = ("enabled", "host", "port", "token")

    def __init__(self, name: str, values: object, default_port: int) -> None:
        if not isinstance(values, dict):
            raise BootError(f"{name} must be an object")
        self.host = str(values.get("host", "0.0.0.0"))  # noqa: S104  (the machine's own network)
        self.port = values.get("port", default_port)
        self.enabled = values.get("enabled") is True
        self.token = values.get("token")
        if not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise BootError(f"{name}.port must be a port number")
        if self.token is not None and (not isinstance(self.token, str) or len(self.token) < 16):
            raise BootError(f"{name}.token must be a string of at least 16 characters")


class Boot:
    """Everything the agent is told about this boot."""

    __slots__ = (
        "boot_id", "cmd", "control", "env", "grace", "hostname", "runtime", "seed", "ssh", "user",
        "workdir",
    )  # fmt: skip

    def __init__(self, document: Mapping[str, object]) -> None:
        self.boot_id = str(document.get("boot_id", ""))
        self.hostname = str(document.get("hostname", ""))
        self.control = Port("control", document.get("control"), 9989)
        if self.control.token is None:
            raise BootError("control.token is required")
        self.runtime = Port("runtime", document.get("runtime", {}), 9990)
        if self.runtime.enabled and self.runtime.token is None:
            raise BootError("runtime.token is required when the runtime is enabled")
        ssh = document.get("ssh") or {"enabled": False}
        if not isinstance(ssh, dict):
            raise BootError("ssh must be an object")
        self.ssh: dict[str, object] = ssh
        env = document.get("env") or {}
        if not isinstance(env, dict) or not all(isinstance(item, str) for item in env.values()):
            raise BootError("env must be an object of strings")
        self.env: dict[str, str] = {**DEFAULT_ENV, **env}
        cmd = document.get("cmd") or []
        if not isinstance(cmd, list) or not all(isinstance(item, str) for item in cmd):
            raise BootError("cmd must be a list of strings")
        self.cmd: list[str] = cmd
        self.seed = read_seed(document.get("seed"))
        grace = document.get("grace", GRACE)
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= 600:
            raise BootError("grace must be seconds from 0 to 600")
        self.grace = float(grace)
        workdir = document.get("workdir") or "/root"
        self.workdir = workdir if isinstance(workdir, str) else "/root"
        user = document.get("user")
        self.user = user if isinstance(user, str) else ""


def read_seed(value: object) -> bytes:
    """The seed of a document for the machine's own random pool: hex digits, or nothing.

    Raises:
        BootError: it is something else.
    """
    try:
        seed = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        raise BootError("seed must be hex digits") from None
    if len(seed) > MOST_SEED or not (value is None or isinstance(value, str)):
        raise BootError(f"seed must be hex digits of at most {MOST_SEED} bytes")
    return seed


def read_boot(fd: int = 0) -> Boot:
    """Read the document from a file descriptor up to its end.

    Raises:
        BootError: it is missing, too large or wrong.
    """
    parts: list[bytes] = []
    size = 0
    while chunk := os.read(fd, 65536):
        size += len(chunk)
        if size > DOCUMENT_LIMIT:
            raise BootError(f"the boot document is larger than {DOCUMENT_LIMIT} bytes")
        parts.append(chunk)
    try:
        document = json.loads(b"".join(parts))
    except ValueError as error:
        raise BootError(f"the boot document is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise BootError("the boot document is no JSON object")
    return Boot(document)
