"""The life of the agent: boot document, ports, READY, main command, end."""

from __future__ import annotations

import sys

# The agent never speaks TLS; without these modules asyncio starts faster and is 4 MiB smaller.
sys.modules["ssl"] = None  # type: ignore[assignment]
import asyncio  # noqa: E402

del sys.modules["ssl"]
import contextlib  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402

from bastide_agent.boot import Boot, BootError, read_boot  # noqa: E402
from bastide_agent.checkpoint import Checkpoint  # noqa: E402
from bastide_agent.command import MainCommand  # noqa: E402
from bastide_agent.control import Control  # noqa: E402
from bastide_agent.ending import all_are_ours, end_all  # noqa: E402
from bastide_agent.http.errors import ApiError  # noqa: E402
from bastide_agent.http.fields import Fields  # noqa: E402
from bastide_agent.http.server import Server  # noqa: E402
from bastide_agent.kernel import reseed  # noqa: E402
from bastide_agent.process import Places  # noqa: E402
from bastide_agent.runtime import Runtime, load  # noqa: E402
from bastide_agent.ssh.switch import SshSwitch  # noqa: E402

BAD_BOOT = 78  # EX_CONFIG


def main() -> None:
    """Run until the main command ends or SIGTERM comes; exit with the code to tell."""
    load()  # before the document: a machine may be saved while it waits, and go on from here
    try:
        boot = read_boot()
    except BootError as error:
        sys.stderr.write(f"bastide-agent: {error}\n")
        sys.exit(BAD_BOOT)
    if boot.seed:
        reseed(boot.seed)
    sys.exit(asyncio.run(serve(boot)))


async def serve(boot: Boot) -> int:
    """Serve both ports to the end; the exit code."""
    sys.setswitchinterval(0.001)  # a walk in a thread must not hold up the loop for long
    os.umask(0o022)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    places = Places(boot.env, boot.workdir)
    places.enter()
    command = MainCommand(boot.cmd, places, boot.user) if boot.cmd else None
    runtime = Runtime(boot.runtime, places)
    ssh = SshSwitch(places)
    router = Control(boot, runtime, command, ssh).router
    checkpoint = Checkpoint(boot, runtime, ssh, router)
    control = checkpoint.control = Server(router, boot.control.token)
    try:
        await control.start(boot.control.host, int(boot.control.port))
        if boot.runtime.enabled and boot.runtime.token is not None:
            await runtime.enable(boot.runtime.token)
    except OSError as error:
        sys.stderr.write(f"bastide-agent: cannot listen: {error}\n")
        return BAD_BOOT
    # A machine without SSH is of more use than none: the control plane sees that it is off.
    with contextlib.suppress(ApiError):
        if boot.ssh.get("enabled"):
            await ssh.set(Fields(boot.ssh))
    node = announce(boot, control.port, runtime)
    gc.collect()
    gc.freeze()
    running = asyncio.ensure_future(command.run()) if command is not None else None
    asked = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([asked, running] if running else [asked], return_when="FIRST_COMPLETED")
    control.stop()
    runtime.server.stop()
    ssh.start_no_more()
    if all_are_ours():
        await end_all(boot.grace)
    tasks = asyncio.gather(runtime.close(), ssh.stop())
    code = await end(command, running, boot.grace) if command and running else 0
    await tasks
    asked.cancel()
    if command and command.ended_by:
        say(node, f"BASTIDE SIGNAL {command.ended_by}")  # 128 + number may be a code of its own
    return code


async def end(command: MainCommand, running: asyncio.Future[int], grace: float) -> int:
    """End the main command if it still runs; its exit code."""
    if not running.done():
        command.signal(signal.SIGTERM)
        await asyncio.wait((running,), timeout=grace)
        command.signal(signal.SIGKILL)
    return await running


def say(node: int, line: str) -> None:
    """Tell the node something, unless it is gone or what others have printed lies in the way."""
    with contextlib.suppress(OSError):
        poll = select.poll()
        poll.register(node, select.POLLOUT)
        if poll.poll(0):
            os.write(node, f"\n{line}\n".encode())


def announce(boot: Boot, control_port: int, runtime: Runtime) -> int:
    """Say READY, then take the node's pipe out of everybody's way; where it is now.

    Whoever let us choose a port (0, in tests) is told first which it is.
    """
    lines = ""
    if 0 in (boot.control.port, boot.runtime.port):
        lines = f"PORTS {control_port} {runtime.port if runtime.enabled else 0}\n"
    with contextlib.suppress(OSError):
        os.write(1, f"{lines}READY\n".encode())
    node = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)
    return node
