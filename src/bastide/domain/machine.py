"""What the control plane asks of a machine, and what is told about it.

These are the documents on the node's socket; the node checks every one again.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from bastide.domain.network import NetworkPolicy

WORKSPACE_ID = r"^ws_[0-9a-f]{8,32}$"
SSH_PORT = 22
CONTROL_PORT = 9989
RUNTIME_PORT = 9990

BUNDLE_MOUNT = "/.bastide"
AGENT_ARGV = (
    f"{BUNDLE_MOUNT}/bin/tini", "--",
    f"{BUNDLE_MOUNT}/bin/python3.11", "-I", "-S", f"{BUNDLE_MOUNT}/agent/main.pyc",
)  # fmt: skip
"""Process 1 of every machine. No shell and no launcher: an image may hold neither."""
AGENT_ENV = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Environment of process 1 alone (processes get their own): keeps the agent's heap small."""


STOP_GRACE = 10.0
"""Seconds a machine has to end by itself once it is asked to; then it is made to."""
PROGRAMS_GRACE = 8.0
"""Seconds of those that its programs have; the rest is for process 1 and the machine's kernel."""

MEMORY_IN_USE = "memory_in_use"
"""Code of the refusal to give a running machine less memory than it uses."""


class Document(BaseModel):
    """A frozen document; a field it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MachineState(StrEnum):
    """What the node sees of a machine now."""

    ABSENT = "absent"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    FAILED = "failed"


UP = frozenset({MachineState.RUNNING, MachineState.PAUSED})
ENDED = frozenset({MachineState.STOPPED, MachineState.ABSENT, MachineState.FAILED})


class Resources(Document):
    """Limits the kernel enforces. cpus in cores, memory and disk in MiB."""

    cpus: float = Field(ge=0.25, le=32)
    memory_mb: int = Field(ge=128, le=65536)
    disk_mb: int = Field(ge=64, le=204800)
    pids: int = Field(1024, ge=32, le=65536)


class RuntimeAccess(Document):
    """The runtime server on port 9990: on or off, and the raw token it accepts (hex)."""

    enabled: bool = False
    token: str | None = Field(None, pattern=r"^[0-9a-f]{32,128}$", repr=False)


class SshAccess(Document):
    """The SSH server on port 22: on or off, its own key, and who may enter as root.

    `host_key` is a private key in OpenSSH's format, `password_hash` what crypt(3) reads (None: no
    password opens it), `keys` are lines of authorized_keys.
    """

    enabled: bool = False
    host_key: str | None = Field(None, max_length=16384, repr=False)
    password_hash: str | None = Field(None, max_length=256, repr=False)
    keys: tuple[str, ...] = Field((), max_length=200)


class Driver(StrEnum):
    """What runs a machine: a container, a microVM, or what is best on the host."""

    AUTO = "auto"
    CONTAINER = "container"
    MICROVM = "microvm"


class MachineSpec(Document):
    """Everything needed to make and boot the machine of one workspace.

    `image` is a catalogue id (`debian-12`) or a reference (`registry/name:tag`). `env` is given to
    every process; `cmd` is the main command as an argv list, () for none, or None for what the
    image says. `workdir` and `user` (of the main command) are filled in from the image where they
    are None.
    """

    id: str = Field(pattern=WORKSPACE_ID)
    image: str = Field(min_length=1, max_length=255)
    hostname: str = Field("workspace", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    resources: Resources
    network: NetworkPolicy = NetworkPolicy()
    runtime: RuntimeAccess = RuntimeAccess()
    ssh: SshAccess = SshAccess()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    cmd: tuple[str, ...] | None = None
    driver: Driver = Driver.AUTO
    workdir: str | None = Field(None, max_length=4096)
    user: str | None = Field(None, max_length=128)


class SnapshotAfter(StrEnum):
    """What a machine is once its snapshot is taken (spec control-plane 4.8)."""

    RESUME = "resume"
    PAUSED = "paused"
    STOP = "stop"


class Snapshot(Document):
    """The last snapshot of a machine: its memory and its disk at one moment.

    `memory_bytes` and `disk_bytes` are what they take on the host; blocks that the disk shares
    with another are counted too. `taken_ms` is how long the machine stood still.
    """

    id: str
    at: datetime
    image: str
    address: str | None = None
    memory_bytes: int
    disk_bytes: int
    taken_ms: float


class ControlAddress(Document):
    """Where the agent's control port is, and this boot's token."""

    address: str
    port: int = CONTROL_PORT
    token: str = Field(repr=False)


class MachineExit(Document):
    """How a machine ended."""

    at: datetime
    code: int | None = None
    signal: int | None = None
    oom: bool = False
    requested: bool = Field(False, description="the node was asked to stop it")
    reason: str | None = Field(None, description="why, where the numbers do not tell")


class MachineStatus(Document):
    """What the node sees of one machine. `timings` are milliseconds per stage of the last boot."""

    id: str
    state: MachineState
    image: str | None = None
    address: str | None = None
    boot_id: str | None = None
    started_at: datetime | None = None
    tier: str | None = None
    exit: MachineExit | None = None
    error: str | None = None
    control: ControlAddress | None = None
    resources: Resources | None = None
    snapshot: Snapshot | None = None
    timings: dict[str, float] = Field(default_factory=dict)


class MachineStats(Document):
    """Use of a machine now: CPU time in seconds, bytes of memory, disk and network."""

    cpu_seconds: float
    memory_bytes: int
    memory_limit_bytes: int
    disk_bytes: int
    disk_limit_bytes: int
    network_in_bytes: int
    network_out_bytes: int
    pids: int


class ImageOrigin(StrEnum):
    """Where an image comes from."""

    RECIPE = "recipe"
    IMPORT = "import"
    PULL = "pull"


class RegistryAuth(Document):
    """Who asks a registry for an image. An empty name goes with a token as password."""

    username: str = Field("", max_length=256)
    password: str = Field(min_length=1, max_length=16384, repr=False)


class ImageRequest(Document):
    """An image to be had: a reference, or an id of the catalogue, which is built if need be."""

    reference: str = Field(min_length=1, max_length=255)
    auth: RegistryAuth | None = None


class ImageInfo(Document):
    """One image the node can boot or make (spec control-plane 4.16). Sizes in bytes.

    `cpus`, `memory_mb` and `disk_mb` are what a workspace of it gets when nobody says otherwise;
    None: the settings' defaults. `last_used` is when a machine was last made of it. `skipped`
    counts entries of its layers that no workspace can have, such as devices.
    """

    id: str
    image: str
    label: str
    desc: str
    category: str
    ready: bool
    buildable: bool = Field(False, description="not there yet, and made when it is asked for")
    origin: ImageOrigin = ImageOrigin.RECIPE
    keywords: tuple[str, ...] = ()
    logo: str | None = None
    color: str | None = None
    cpus: float | None = None
    memory_mb: int | None = None
    disk_mb: int | None = None
    names: tuple[str, ...] = ()
    source: str | None = Field(None, description="digest of the manifest it was unpacked from")
    exposed_ports: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    used: bool = False
    last_used: datetime | None = None
    skipped: int = 0
    digest: str | None = None
    size_bytes: int | None = None
    minimum_disk_mb: int = 64
    minimum_memory_mb: int = 128
    software: tuple[str, ...] = ()
    family: str = ""
    distribution: str = ""
    version: str = ""
    error: str | None = None


class TierInfo(Document):
    """One way to run machines: whether it is to be had here, and what it is made of."""

    tier: str
    ready: bool
    reason: str | None = None
    runtime: str = ""
    kernel: str | None = None
    accelerator: str | None = None
    snapshot: bool = False
    snapshot_unavailable_reason: str | None = None


class Capabilities(Document):
    """What this node can do, and why it cannot do the rest."""

    version: str
    tier: str
    tier_reason: str
    runtime: str
    pause: bool
    snapshot: bool
    snapshot_unavailable_reason: str | None = None
    architecture: str
    cpus: int
    memory_mb: int
    subnet: str
    tiers: tuple[TierInfo, ...] = ()

    def tier_of(self, driver: str | None) -> TierInfo:
        """The tier of a machine that wants `driver` (`Driver`, or a tier's name)."""
        name = self.tier if driver in {None, Driver.AUTO} else driver
        found = next((each for each in self.tiers if each.tier == name), None)
        return found or TierInfo(
            tier=name or self.tier,
            ready=name == self.tier,
            runtime=self.runtime,
            snapshot=self.snapshot,
            snapshot_unavailable_reason=self.snapshot_unavailable_reason,
        )


class MachineEvent(Document):
    """Something that happened to a machine by itself or on request."""

    id: str
    type: str
    at: datetime
    state: MachineState
    exit: MachineExit | None = None
