"""Run a command in a microVM, by its agent: the host has no other way in."""

from __future__ import annotations

import httpx

from bastide.domain.machine import MachineSpec, RuntimeAccess
from bastide.domain.network import NetworkPolicy
from bastide.node.machines.host import Host

TOKEN = "ab" * 32
POLICY = NetworkPolicy(public_access=True, ingress_ports=(9990, 7000))
ACCESS = RuntimeAccess(enabled=True, token=TOKEN)
SECONDS = 60.0


async def shell(host: Host, machine: MachineSpec | str, text: str) -> str:
    """What a line of the image's shell prints, both streams together; it must succeed."""
    name = machine if isinstance(machine, str) else machine.id
    url = f"http://{host.network.address(name)}:9990/exec"
    body = {"cmd": ["/bin/sh", "-c", f"exec 2>&1; {text}"]}
    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as http:
        answer = await http.post(url, json=body, headers={"authorization": f"Bearer {TOKEN}"})
    document = answer.raise_for_status().json()
    task = document.get("task", document)
    assert task["exit_code"] == 0, task
    return str(task["stdout"]).strip()
