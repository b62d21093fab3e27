"""Before and after a snapshot of the machine's memory (docs/architecture.md, control port).

The kernel's checkpoint cannot hold everything the agent does, and what is brought back is an old
agent in a new boot: with an old identity, old tokens and connections whose other end went on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bastide_agent.boot import Boot, BootError, read_seed
from bastide_agent.http.errors import invalid
from bastide_agent.http.fields import Fields
from bastide_agent.http.message import Request, Response, plain
from bastide_agent.kernel import reseed, set_clock

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.http.server import Server
    from bastide_agent.runtime import Runtime
    from bastide_agent.ssh.switch import SshSwitch

LONGEST_REST = 10.0
"""Seconds until the agent wakes by itself: whoever let it rest may be gone."""


class Checkpoint:
    """`rest` before a snapshot, `wake` when the machine goes on, `renew` in a restored one."""

    def __init__(self, boot: Boot, runtime: Runtime, ssh: SshSwitch, router: Router) -> None:
        self.control: Server | None = None
        """The server of the control port, whose token a restored machine changes."""
        self._boot = boot
        self._runtime = runtime
        self._ssh = ssh
        self._alarm: asyncio.TimerHandle | None = None
        router.add("POST", "/control/rest", self.rest)
        router.add("POST", "/control/wake", self.wake)
        router.add("POST", "/control/renew", self.renew)

    async def rest(self, request: Request) -> Response:
        """Let go of what a snapshot cannot hold. Repeating is harmless.

        With `ending` the machine stops afterwards: whoever is connected is told now, for once it
        is cut off from the network nobody could be.
        """
        fields = await request.fields()
        self._runtime.rest()
        if fields.flag("ending"):
            self._runtime.server.drop_connections()
            if self.control is not None:
                self.control.drop_connections(but=request.connection)
            # Dropped connections close in the loop's next turn, and the answer may be its last.
            await asyncio.sleep(0)
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(LONGEST_REST, self._awake)
        return plain({"resting": True})

    async def wake(self, request: Request) -> Response:
        """Take it up again. Repeating is harmless.

        `clock` and `seed` are for a machine with a kernel of its own, which stood still meanwhile.
        """
        _set_kernel(await request.fields())
        self._awake()
        return plain({"resting": False})

    async def renew(self, request: Request) -> Response:
        """Begin a new boot: another id, other tokens and switches, no connection of before.

        The body is a boot document, of which `boot_id`, `control`, `runtime`, `ssh`, `seed`
        and `grace` count, and `clock`. Tasks and terminals go on, unless the runtime is switched
        off now.
        """
        fields = await request.fields()
        try:
            boot = Boot(fields.values())
        except BootError as error:
            raise invalid("body", str(error)) from None
        _set_kernel(fields)
        self._boot.boot_id, self._boot.grace = boot.boot_id, boot.grace
        if self.control is not None:
            self.control.token = boot.control.token
            self.control.drop_connections(but=request.connection)
        self._runtime.server.drop_connections()
        if boot.runtime.enabled and boot.runtime.token is not None:
            await self._runtime.enable(boot.runtime.token)
        elif self._runtime.enabled:
            await self._runtime.disable()
        await self._ssh.set(Fields(boot.ssh))
        self._awake()
        return plain({"boot_id": boot.boot_id, "running": self._runtime.enabled})

    def _awake(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._runtime.wake()


def _set_kernel(fields: Fields) -> None:
    """Set the machine's own clock (`clock`, nanoseconds) and random pool (`seed`, hex)."""
    try:
        seed = read_seed(fields.raw("seed"))
    except BootError as error:
        raise invalid("seed", str(error)) from None
    if "clock" in fields:
        set_clock(fields.integer("clock", 0, 0, 2**62))
    if seed:
        reseed(seed)
