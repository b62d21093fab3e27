"""Settings of one Bastide server: `bastide.toml`, environment overrides, validated at start.

Read from the file named by `BASTIDE_CONFIG` (default `/etc/bastide/bastide.toml`, which may be
absent); every value can be overridden by an environment variable such as
`BASTIDE_NETWORK__SUBNET`. An unknown key or a wrong value is named in the error
(architecture section 11).
"""

from __future__ import annotations

import os
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

DEFAULT_CONFIG = Path("/etc/bastide/bastide.toml")


# Networks of operators and providers; the only ones `network.allow_private` can open.
PRIVATE_RANGES = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),  # carrier-grade NAT: providers' inner nets, overlay VPNs
    IPv4Network("198.18.0.0/15"),  # benchmarking: laboratory nets
)


class SettingsError(Exception):
    """The settings cannot be used; the message names each offending key."""


class Section(BaseModel):
    """One table of `bastide.toml`; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(Section):
    """Where the edge listens. Loopback only unless an operator says otherwise."""

    api: str = Field("127.0.0.1:7080", description="address:port of the control-plane API")
    gateway: str = Field("127.0.0.1:7081", description="address:port of the runtime gateway")
    ssh: str = Field("127.0.0.1:7022", description="address:port of the SSH bastion")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if len({self.api, self.gateway, self.ssh}) < 3:
            raise ValueError(
                "api, gateway and ssh must be three different ones, "
                f"not {self.api}, {self.gateway} and {self.ssh}"
            )
        return self


class Network(Section):
    """The private network of the workspaces."""

    subnet: IPv4Network = Field(
        IPv4Network("10.201.0.0/16"),
        description="private range; its first address is every workspace's gateway",
    )
    table: str = Field("bastide", pattern=r"^[a-z][a-z0-9_]{0,30}$", description="nftables table")
    nameservers: tuple[str, ...] = Field(
        (), description="servers asked for the names of workspaces; empty: those of the host"
    )
    allow_private: tuple[IPv4Network, ...] = Field(
        (), description="private ranges workspaces may reach; all others are closed to them"
    )
    connections: int = Field(
        4096, ge=64, le=65536, description="most connections one workspace may have begun"
    )

    outbound_pool: tuple[IPv4Address, ...] = Field(
        (), description="addresses of this host that workspaces can be seen as outside"
    )

    @field_validator("nameservers")
    @classmethod
    def _ipv4(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for server in value:
            try:
                IPv4Address(server)
            except ValueError:
                raise ValueError(f"{server!r} is no IPv4 address") from None
        return value

    @field_validator("allow_private")
    @classmethod
    def _private(cls, value: tuple[IPv4Network, ...]) -> tuple[IPv4Network, ...]:
        for network in value:
            if not any(network.subnet_of(private) for private in PRIVATE_RANGES):
                ranges = ", ".join(map(str, PRIVATE_RANGES))
                raise ValueError(f"{network} is in none of the private ranges {ranges}")
        return value

    @field_validator("subnet")
    @classmethod
    def _inside_ten(cls, value: IPv4Network) -> IPv4Network:
        if not value.subnet_of(IPv4Network("10.0.0.0/8")) or value.prefixlen > 24:
            raise ValueError("must be a /24 or larger inside 10.0.0.0/8")
        return value


class Machines(Section):
    """Bounds and defaults of one workspace."""

    driver: Literal["auto", "container", "microvm"] = Field(
        "auto", description="what runs machines; auto: microVMs where hardware runs them"
    )
    default_cpus: float = Field(1.0, ge=0.25, le=32)
    default_memory_mb: int = Field(512, ge=128, le=65536)
    default_disk_mb: int = Field(4096, ge=64, le=204800)
    max_cpus: float = Field(32.0, ge=0.25, le=32)
    max_memory_mb: int = Field(65536, ge=128, le=65536)
    max_disk_mb: int = Field(204800, ge=64, le=204800)
    bandwidth_mbps: float | None = Field(
        None, ge=0.1, le=100_000, description="megabits a second each way; absent: no limit"
    )
    pids: int = Field(1024, ge=32, description="most processes and threads in one workspace")
    boot_concurrency: int = Field(4, ge=1, description="machines booted at the same time")
    boot_timeout: float = Field(60.0, gt=0, description="seconds until a boot counts as failed")
    warm_starts: int = Field(
        8, ge=0, le=64, description="begun microVMs kept to start others from; 0: none"
    )
    id_base: int = Field(1_000_000, ge=100_000, description="first host uid given to workspaces")


class Prices(Section):
    """What workspaces cost, in credits; a credit is worth a cent in the vendor's own anchors."""

    cpu_hour: float = Field(5.0, ge=0, description="an hour of one core's time, as used")
    memory_gib_hour: float = Field(0.6, ge=0, description="a GiB of memory for an hour")
    disk_gib_month: float = Field(10.0, ge=0, description="a GiB of disk for a month")
    network_gib: float = Field(2.0, ge=0, description="a GiB in or out")


class Ssh(Section):
    """SSH into workspaces, by way of the bastion."""

    bastion: str = Field(
        "", description="host or host:port that people are told; empty: listen.ssh"
    )


class Storage(Section):
    """Where disks and snapshots lie below `state_dir`."""

    pool: Literal["auto", "off"] | Annotated[int, Field(ge=512)] = Field(
        "auto",
        description="a file system with shared blocks in a sparse file: MiB it may take, off, or "
        "auto: all that is free, where the host's own file system has no shared blocks",
    )


class Archives(Section):
    """Where archives of workspaces are kept, and how much of them."""

    url: str = Field(
        "",
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?)?$",
        description="s3://bucket/prefix; empty: state_dir/archives",
    )
    endpoint: str = Field("", description="URL of an S3 server that is not Amazon's")
    region: str = Field("", description="region of the bucket; empty: AWS_REGION")
    access_key_id: str = Field("", description="key of the bucket; empty: AWS_ACCESS_KEY_ID")
    secret_access_key: SecretStr = Field(
        SecretStr(""), description="its secret; empty: AWS_SECRET_ACCESS_KEY"
    )
    max_per_workspace: int = Field(50, ge=0, description="most archives of one workspace")
    max_mb: int = Field(51200, ge=1, le=153600, description="MiB one archive may have")
    account_mb: int = Field(204800, ge=0, description="MiB all archives of an account may have")


ANY_REGISTRY = "*"


class Images(Section):
    """Images from registries and files, and how many of them are kept."""

    default_registry: str = Field(
        "docker.io", description="registry of a reference that names none"
    )
    registries: tuple[str, ...] = Field(
        ("*",),
        description='registries images may come from; "*": every one at a public address. '
        "Only those named here may be at a private one",
    )
    insecure_registries: tuple[str, ...] = Field(
        (), description="registries that are spoken to without TLS (host:port)"
    )
    ca_file: Path | None = Field(
        None, description="certificates (PEM) registries may have, besides those of the system"
    )
    max_unpacked_mb: int = Field(16384, ge=16, description="MiB an image may unpack to")
    max_entries: int = Field(500_000, ge=1000, description="files one image may unpack to")
    cache_mb: int = Field(
        20480, ge=0, description="MiB of images and layers that are kept though nobody uses them"
    )
    reserve_mb: int = Field(
        1024, ge=0, description="MiB of the disk that are left free when an image is fetched"
    )
    pull_timeout: float = Field(1800, gt=0, description="seconds one image may take to be fetched")

    def names(self, registry: str) -> bool:
        """Whether a registry (`host` or `host:port`) is named, and may so be at any address."""
        named = (*self.registries, *self.insecure_registries)
        return registry in named and registry != ANY_REGISTRY

    def admits(self, registry: str) -> bool:
        """Whether images may come from a registry at all."""
        return ANY_REGISTRY in self.registries or self.names(registry)


class Database(Section):
    """Where the control plane keeps its rows."""

    url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the state directory")


class Log(Section):
    """How the processes log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Settings(BaseSettings):
    """All settings of a server."""

    model_config = SettingsConfigDict(
        env_prefix="BASTIDE_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    state_dir: Path = Field(Path("/var/lib/bastide"), description="everything that must last")
    run_dir: Path = Field(Path("/run/bastide"), description="sockets and pid files")
    user: str = Field("bastide", description="unprivileged user of the api")
    edge_user: str = Field("bastide-edge", description="unprivileged user of the edge")
    ssh_user: str = Field("bastide-ssh", description="unprivileged user of the SSH bastion")
    resolver_user: str = Field("bastide-resolver", description="unprivileged user of the resolver")
    listen: Listen = Listen()
    network: Network = Network()
    machines: Machines = Machines()
    prices: Prices = Prices()
    ssh: Ssh = Ssh()
    storage: Storage = Storage()
    archives: Archives = Archives()
    images: Images = Images()
    database: Database = Database()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then the file, then the defaults."""
        del dotenv_settings, file_secret_settings
        toml = TomlConfigSettingsSource(settings_cls, config_path())
        return (init_settings, env_settings, toml)

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database.url or f"sqlite:///{self.state_dir}/db/bastide.sqlite3"

    @property
    def node_socket(self) -> Path:
        """The unix socket of bastide-node (0660, group `user`)."""
        return self.run_dir / "node.sock"

    @property
    def resolver_socket(self) -> Path:
        """The unix socket of bastide-node for the resolver (0660, group `resolver_user`)."""
        return self.run_dir / "resolver.sock"

    @property
    def api_socket(self) -> Path:
        """The unix socket of bastide-api, which the edge connects to."""
        return self.run_dir / "api" / "api.sock"

    @property
    def edge_dir(self) -> Path:
        """Maps and certificates the control plane keeps for the edge."""
        return self.state_dir / "edge"

    @property
    def bastion_dir(self) -> Path:
        """The bastion's own key (0600) and its public half, which anyone may read."""
        return self.state_dir / "bastion"

    @property
    def bastion_map(self) -> Path:
        """Who may pass the bastion to which workspace: written by the api, read by the bastion."""
        return self.state_dir / "ssh" / "workspaces.json"

    @property
    def edge_socket(self) -> Path:
        """HAProxy's runtime API socket, owned by the api's user."""
        return self.run_dir / "edge" / "edge.sock"

    @property
    def archives_dir(self) -> Path:
        """Where archives are kept unless `archives.url` names a bucket."""
        return self.state_dir / "archives"

    @property
    def credentials_file(self) -> Path:
        """The first admin key (0600, of the api's user), read by `bastide env`."""
        return self.state_dir / "secrets" / "credentials.json"

    @property
    def api_url(self) -> str:
        """Base URL of the control-plane API."""
        return f"http://{self.listen.api}"

    @property
    def gateway_url(self) -> str:
        """Base URL of the runtime gateway."""
        return f"http://{self.listen.gateway}"


def config_path() -> Path:
    """The settings file in force."""
    return Path(os.environ.get("BASTIDE_CONFIG", str(DEFAULT_CONFIG)))


def read_settings() -> Settings:
    """Read and check the settings.

    Raises:
        SettingsError: a key is unknown or a value is wrong; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        ]
        where = config_path()
        message = f"the settings are wrong ({where} or BASTIDE_* variables):\n" + "\n".join(lines)
        raise SettingsError(message) from None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return read_settings()
