"""The network policy of one workspace (spec control-plane 4.4, 5.5).

A packet comes in only if its source is admitted *and* its port is open. `public_access` admits
the edge (the spec's `host` keyword). Outbound internet is allowed unless `allow_internet` is
false. No policy ever opens the host, the control plane, another workspace without a link, or
link-local and metadata addresses.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

MAX_ENTRIES = 50


class NetworkPolicy(BaseModel):
    """What may reach a workspace, and what it may reach.

    `ingress` holds IPv4 addresses or ranges in CIDR form, `egress` these and host names
    (`bastide.domain.egress`), `links` addresses of workspaces; ports are 1-65535. `ssh` admits
    the bastion of the host at port 22. `outbound_ip` is the address the outside sees,
    `bandwidth_mbps` (megabits a second, each direction) the most it may send and receive; None is
    the host's address and no limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow_internet: bool = True
    public_access: bool = False
    ssh: bool = False
    ingress: tuple[str, ...] = Field((), max_length=MAX_ENTRIES)
    ingress_ports: tuple[int, ...] = Field((), max_length=MAX_ENTRIES)
    egress: tuple[str, ...] = Field((), max_length=MAX_ENTRIES)
    egress_ports: tuple[int, ...] = Field((), max_length=MAX_ENTRIES)
    links: tuple[str, ...] = Field((), max_length=MAX_ENTRIES)
    outbound_ip: str | None = Field(None, max_length=15)
    bandwidth_mbps: float | None = Field(None, ge=0.1, le=100_000)


class Blocked(BaseModel):
    """Connections, or questions for a name, that a workspace was refused.

    `protocol` is `tcp`, `udp`, `icmp`, `dns` or the number of another. `name` is the host name
    the destination was last resolved from, as far as it is known. `count` is a lower bound when
    more was refused than is written down.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: datetime
    last: datetime
    protocol: str
    destination: str
    port: int | None = None
    name: str | None = None
    reason: str
    count: int = Field(ge=1)


class BlockedLog(BaseModel):
    """What was refused lately, newest first, and how many packets in all since the last boot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blocked: tuple[Blocked, ...] = ()
    packets: int = 0
