"""The `network` column: what its owner's words make of it (spec 3.3, 4.4)."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from bastide.domain.config import HOST, NetworkConfig
from bastide.domain.errors import ValidationFailed
from bastide.services.caller import Caller
from bastide.services.links import addresses, callers_of, linked
from bastide.store.tables import Workspace

DARK: dict[str, Any] = {
    "allow_internet": True,
    "public_access": False,
    "public_access_set": None,
    "ingress": [],
    "ingress_ports": [],
    "egress": [],
    "egress_ports": [],
    "private_link_ids": [],
    "links": [],
    "outbound_ip": None,
    "bandwidth_mbps": None,
}
"""A new workspace: nothing reaches it, and it reaches the internet."""


async def network_changes(
    session: AsyncSession, caller: Caller, wanted: NetworkConfig, row: Workspace | None = None
) -> dict[str, Any]:
    """The part of the column that a request says something about; `row` is None for a new one.

    Raises:
        NotFound: a private link to a workspace the caller does not reach.
        ValidationFailed: `host` among the sources of a workspace without public access, or a
            link to itself.
    """
    now = DARK if row is None else row.network
    found: dict[str, Any] = {}
    if wanted.allow_internet is not None:
        found["allow_internet"] = wanted.allow_internet
        if not wanted.allow_internet:
            found["egress"] = []
    if wanted.public is not None:
        found |= {"public_access": wanted.public, "public_access_set": wanted.public}
    if wanted.ports is not None:
        found["ingress_ports"] = list(wanted.ports)
    if wanted.ingress is not None:
        public = bool({**now, **found}.get("public_access"))
        shown = addresses((await callers_of(session, caller, row)).seen) if row else []
        found["ingress"] = _sources(wanted.ingress, public=public, links=shown)
    if wanted.egress is not None:
        found["egress"] = list(dict.fromkeys(wanted.egress))
    if wanted.egress_ports is not None:
        found["egress_ports"] = sorted(set(wanted.egress_ports))
    if wanted.private_link_ids is not None:
        found |= await linked(session, caller, wanted.private_link_ids, row)
    if "bandwidth_mbps" in wanted.model_fields_set:
        found["bandwidth_mbps"] = wanted.bandwidth_mbps
    return found


def _sources(entries: list[str], *, public: bool, links: list[str]) -> list[str]:
    """The owner's own entries: what else is shown in `ingress` may be sent back."""
    if HOST in entries and not public:
        raise ValidationFailed(
            "ingress", "The edge (host) is admitted with public_access: true, not in ingress."
        )
    return [one for one in dict.fromkeys(entries) if one != HOST and one not in links]
