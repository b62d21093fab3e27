"""How the agent of a machine that came back becomes the agent of a new boot."""

from __future__ import annotations

import json
from collections.abc import Mapping

from bastide.domain.machine import RUNTIME_PORT, SSH_PORT, MachineSpec
from bastide.domain.network import NetworkPolicy
from bastide.node.agent import TIMEOUT, tell
from bastide.node.machines.boot import boot_document
from bastide.node.machines.host import Host
from bastide.node.snapshots import SnapshotRecord
from bastide.node.store import BootRecord

_AGENT_PORTS = (RUNTIME_PORT, SSH_PORT)


def shut(wanted: NetworkPolicy) -> NetworkPolicy:
    """A policy without the ways to the agent, which has its former tokens until it is renewed.

    The rest is in force at once: a connection that came back would be reset by a firewall
    that is closed to it, for its first packet is sent before the agent can be told anything.
    """
    ports = tuple(port for port in wanted.ingress_ports if port not in _AGENT_PORTS)
    return wanted.model_copy(update={"public_access": False, "ssh": False, "ingress_ports": ports})


async def renew(
    host: Host,
    spec: MachineSpec,
    snapshot: SnapshotRecord,
    record: BootRecord,
    going_on: Mapping[str, object] | None = None,
    *,
    seconds: float = TIMEOUT,
) -> None:
    """Make the agent that came back the agent of the boot `record`.

    `going_on` is what one with a kernel of its own must know besides.

    Raises:
        BootFailed: it does not answer.
    """
    told = spec.model_copy(update={"env": {}, "cmd": None})
    document = json.loads(boot_document(told, record.boot_id, record.token))
    told_all = {**document, **(going_on or {})}
    await tell(
        str(host.network.address(spec.id)), snapshot.boot.token, "renew", told_all, seconds=seconds
    )
