"""The `config` of a workspace as clients write it (spec 3.3).

Every known key is honoured or refused with a sentence; keys nobody knows are ignored, because
the vendor's clients pass them through.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
)

from bastide.domain.archive import ArchiveSource
from bastide.domain.egress import canonical, destinations, range_of
from bastide.domain.lease import Action, Ttl
from bastide.domain.machine import CONTROL_PORT, Driver
from bastide.domain.network import MAX_ENTRIES
from bastide.domain.restart import RestartPolicy, present_word
from bastide.domain.text import plain_text

MAX_TEXT_BYTES = 64 * 1024
MAX_ARGUMENTS = 1024
MAX_VARIABLES = 512
HOST = "host"
"""In `ingress`: the edge of this server; written by `public_access`."""
SHELL = ("/bin/sh", "-c")
_V = TypeVar("_V")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}", re.ASCII)
_ABSENT: tuple[object, ...] = (None, False, 0, "", [], {}, {"enabled": False})

LATER = {
    "idle": "automatic sleep (idle) is not available yet; leave it out or send null",
    "auto_stop_seconds": "automatic stop is not available yet; leave it out",
    "workloads": "workloads are not available yet; leave them out and use cmd or the runtime API",
    "proxy_assignment_id": "assignments by number are not available; leave it out and choose an "
    "address with POST /workspace/:id/network/ip",
    "ready_check": "ready checks are not available yet; leave ready_check out",
    "desktop": "desktops are not available yet; leave it out or send {enabled: false}",
    "enable_kvm": "nested virtualisation is not available; leave enable_kvm out or send false",
    "kernel_id": "other kernels are not available; leave kernel_id out",
    "macos": "macOS workspaces are not available; leave macos out",
    "root_disk_id": "persistent disks are not available yet; leave root_disk_id out",
    "disks": "persistent disks are not available yet; leave disks out",
    "outbound_mode": "outbound proxies of your own are not supported; outbound_mode is "
    '"managed": workspaces leave as this server, or as one of its addresses '
    "(POST /workspace/:id/network/ip)",
    "custom_proxy": "outbound proxies of your own are not supported; leave custom_proxy out",
    "preset": "presets are not available; choose an image instead",
}
_ALSO_FINE: dict[str, tuple[object, ...]] = {"outbound_mode": ("managed",)}


def _readable(value: Any) -> Any:
    """Check text before anything else looks at it."""
    return plain_text(value) if isinstance(value, str) else value


def _exact(value: Any) -> Any:
    """Numbers are numbers: neither booleans nor text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic wants ValueError
    return value


def _whole(value: Any) -> Any:
    """A whole number, also when written as 512.0."""
    if isinstance(_exact(value), float) and not value.is_integer():
        raise ValueError("must be a whole number")
    return int(value)


Text = Annotated[str, BeforeValidator(_readable)]
Cores = Annotated[float, BeforeValidator(_exact), Field(ge=0.25, le=32, allow_inf_nan=False)]
Memory = Annotated[int, BeforeValidator(_whole), Field(ge=128, le=65536)]
Disk = Annotated[int, BeforeValidator(_whole), Field(ge=64, le=204800)]
Port = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=65535)]
Bandwidth = Annotated[
    float, BeforeValidator(_exact), Field(ge=0.1, le=100_000, allow_inf_nan=False)
]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=1_000_000)]


def _argv(value: Any) -> Any:
    """A main command: a list of words, or a line for the shell."""
    if value is None or value in ("", []):
        return None
    if isinstance(value, str):
        value = [*SHELL, value]
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise ValueError(
            'must be a list of words such as ["node", "server.js"], or one line for the shell'
        )
    if len(value) > MAX_ARGUMENTS or sum(len(plain_text(word).encode()) for word in value) > (
        MAX_TEXT_BYTES
    ):
        raise ValueError("must have at most 1024 words and 64 KiB in all")
    if not value[0]:
        raise ValueError("must begin with the name of a program")
    return tuple(value)


def _environment(value: Any) -> Any:
    """Environment as an object, a list of `K=V`, or a list of `{key, value}`."""
    if value is None:
        return {}
    pairs = value.items() if isinstance(value, dict) else map(_variable, _listed(value))
    result: dict[str, str] = {}
    for key, content in pairs:
        if not _VARIABLE.fullmatch(key):
            raise ValueError(
                f"{key[:80]!r} is no name of a variable; allowed are letters, digits, "
                "_, . and -, with no digit first"
            )
        result[key] = _content(key, content)
    if len(result) > MAX_VARIABLES or sum(
        len(key) + len(text.encode()) for key, text in result.items()
    ) > (MAX_TEXT_BYTES):
        raise ValueError("must have at most 512 variables and 64 KiB in all")
    return result


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(  # noqa: TRY004 - pydantic wants ValueError
            'must be an object, a list of "KEY=VALUE", or a list of {key, value}'
        )
    return value


def _variable(item: Any) -> tuple[str, Any]:
    """One entry of the list forms."""
    if isinstance(item, str) and "=" in item:
        key, _, content = item.partition("=")
        return key, content
    if isinstance(item, dict) and isinstance(item.get("key"), str) and "value" in item:
        return item["key"], item["value"]
    raise ValueError('each entry must be "KEY=VALUE" or {"key": ..., "value": ...}')


def _content(key: str, value: Any) -> str:
    """The value of one variable as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return plain_text(value)
    raise ValueError(f"the value of {key!r} must be text or a number")


class LaterError(ValueError):
    """A known field whose feature is not there yet; `field` is its name."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


def refuse_later(value: Any, info: ValidationInfo) -> Any:
    """Refuse a known key whose feature does not exist yet, unless its value means "off".

    Raises:
        LaterError: says what to do instead.
    """
    name = info.field_name or ""
    if not any(
        type(value) is type(fine) and value == fine
        for fine in (*_ABSENT, *_ALSO_FINE.get(name, ()))
    ):
        raise LaterError(name, LATER[name])
    return None


Later = Annotated[Any, BeforeValidator(refuse_later)]


def _same(value: _V, other: object, name: str) -> _V:
    """The value, unless another name of the same thing says otherwise."""
    if value is not None and other is not None and value != other:
        raise ValueError(f"must be the same as {name}, or left out")
    return value


def _entry(value: str, check: Callable[[str], object]) -> str:
    """One entry of a list of addresses or names, checked, without the quotes of a `ValueError`."""
    text = plain_text(value).strip()
    check(text)
    return text


def _source(value: str) -> str:
    """An address or range connections may come from, or `host` (the edge)."""
    if value.strip() == HOST:
        return HOST
    return _entry(value, range_of)


def _destination(value: str) -> str:
    """An address, range or name connections may go to."""
    return canonical(_entry(value, lambda text: destinations((text,))))


def _open_port(value: int) -> int:
    if value == CONTROL_PORT:
        raise ValueError(f"{CONTROL_PORT} is used by Bastide itself and cannot be opened")
    return value


class NetworkConfig(BaseModel):
    """`network_config`, and the body of PATCH /network (spec 3.3, 4.4)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    allow_internet: StrictBool | None = None
    public_access: StrictBool | None = None
    public_ingress: StrictBool | None = Field(None, description="older name of public_access")
    ingress_ports: list[Annotated[Port, AfterValidator(_open_port)]] | None = Field(
        None, max_length=MAX_ENTRIES
    )
    ingress: list[Annotated[str, AfterValidator(_source)]] | None = Field(
        None, max_length=MAX_ENTRIES, description="addresses and ranges that may connect"
    )
    egress: list[Annotated[str, AfterValidator(_destination)]] | None = Field(
        None,
        max_length=MAX_ENTRIES,
        description='addresses, ranges, host names, "*.example.com"; [] or ["*"]: everything',
    )
    egress_ports: list[Port] | None = Field(
        None, max_length=MAX_ENTRIES, description="ports it may connect to; []: all"
    )
    private_link_ids: list[Annotated[Text, Field(min_length=1, max_length=128)]] | None = Field(
        None, max_length=MAX_ENTRIES, description="workspaces that may connect to this one"
    )
    bandwidth_mbps: Bandwidth | None = Field(
        None, description="megabits a second, each way; null: as much as the server allows"
    )
    outbound_mode: Later = None
    custom_proxy: Later = None

    @field_validator("public_ingress")
    @classmethod
    def _agree(cls, value: bool | None, info: ValidationInfo) -> bool | None:  # noqa: FBT001
        return _same(value, info.data.get("public_access"), "public_access")

    @field_validator("egress")
    @classmethod
    def _reachable(cls, value: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if value and info.data.get("allow_internet") is False:
            raise ValueError(
                "egress says what is reached of the internet; leave it out, or leave "
                "allow_internet: false out"
            )
        return value

    @property
    def public(self) -> bool | None:
        """Whether the edge is admitted; None: not said."""
        return self.public_ingress if self.public_access is None else self.public_access

    @property
    def ports(self) -> tuple[int, ...] | None:
        """The open ports, sorted and once each; None: not said."""
        return None if self.ingress_ports is None else tuple(sorted(set(self.ingress_ports)))


class Config(BaseModel):
    """A checked `config`; None means "not given". Sizes in MiB, cpus in cores."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    cpus: Cores | None = None
    memory_mb: Memory | None = None
    disk_size_mb: Disk | None = None
    writable_size_mb: Disk | None = Field(None, description="older name of disk_size_mb")
    env: Annotated[dict[str, str], BeforeValidator(_environment)] | None = None
    cmd: Annotated[tuple[str, ...] | None, BeforeValidator(_argv)] = None
    driver: Driver | None = Field(None, description="what runs it; for admins")
    restart_policy: Annotated[RestartPolicy | None, BeforeValidator(present_word)] = None
    max_restarts: Count | None = None
    keep_logs: StrictBool | None = None
    static_network: StrictBool | None = None
    wait_for_init: StrictBool | None = None
    network_config: NetworkConfig | None = None
    allow_internet: StrictBool | None = None
    ssh_access: StrictBool | None = None

    ttl: Ttl | None = None
    ttl_action: Action | None = None
    remove_on_exit: StrictBool | None = None

    archive: ArchiveSource | None = Field(
        None, description="begin with the files of this archive; at creation only"
    )

    idle: Later = None
    workloads: Later = None
    proxy_assignment_id: Later = None
    ready_check: Later = None
    desktop: Later = None
    enable_kvm: Later = None
    kernel_id: Later = None
    macos: Later = None
    root_disk_id: Later = None
    disks: Later = None

    @field_validator("writable_size_mb")
    @classmethod
    def _one_disk(cls, value: int | None, info: ValidationInfo) -> int | None:
        return _same(value, info.data.get("disk_size_mb"), "disk_size_mb")

    @field_validator("allow_internet")
    @classmethod
    def _one_internet(cls, value: bool | None, info: ValidationInfo) -> bool | None:  # noqa: FBT001
        inner = info.data.get("network_config")
        other = inner.allow_internet if isinstance(inner, NetworkConfig) else None
        return _same(value, other, "network_config.allow_internet")

    @property
    def disk_mb(self) -> int | None:
        """The size of the disk in MiB, by either name."""
        return self.writable_size_mb if self.disk_size_mb is None else self.disk_size_mb

    @property
    def network(self) -> NetworkConfig:
        """The wanted network, `allow_internet` in either place included."""
        inner = self.network_config or NetworkConfig()
        if self.allow_internet is None:
            return inner
        return inner.model_copy(update={"allow_internet": self.allow_internet})

    def given(self) -> dict[str, Any]:
        """What the owner said beside sizes and network, in the form it is stored and shown."""
        kept = self.model_dump(
            mode="json",
            include={"driver", "restart_policy", "max_restarts", "keep_logs", "static_network"}
            | {"wait_for_init"},
            exclude_none=True,
        )
        if "env" in self.model_fields_set:
            kept["env"] = [{"key": k, "value": v} for k, v in (self.env or {}).items()]
        if "cmd" in self.model_fields_set:
            kept["cmd"] = list(self.cmd) if self.cmd else None
        return kept
