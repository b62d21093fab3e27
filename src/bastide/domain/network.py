"""The network policy of one workspace (spec control-plane 4.4, 5.5).

A packet comes in only if its source is admitted *and* its port is open. `public_access` admits
the edge (the spec's `host` keyword). Outbound internet is allowed unless `allow_internet` is
false. No policy ever opens the host, the control plane, another workspace without a link, or
link-local and metadata addresses.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MAX_ENTRIES = 50


class NetworkPolicy(BaseModel):
    """What may reach a workspace, and what it may reach.

    `ingress` and `egress` hold IPv4 addresses or ranges in CIDR form; ports are 1-65535.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow_internet: bool = True
    public_access: bool = False
    ingress: tuple[str, ...] = Field((), max_length=MAX_ENTRIES)
    ingress_ports: tuple[int, ...] = Field((), max_length=MAX_ENTRIES)
    egress: tuple[str, ...] = Field((), max_length=MAX_ENTRIES)
    egress_ports: tuple[int, ...] = Field((), max_length=MAX_ENTRIES)
    links: tuple[str, ...] = Field((), max_length=MAX_ENTRIES)
