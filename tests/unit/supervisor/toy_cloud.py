"""A supervisor of two toy services, run as a process by test_supervisor.py: RUN_DIR as argument."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bastide.supervisor.process import Process
from bastide.supervisor.record import record_path
from bastide.supervisor.service import Launch, Service
from bastide.supervisor.supervisor import AlreadyRunning, Supervisor, supervise

PAUSE = (sys.executable, "-c", "import signal; signal.pause()")


async def main(run_dir: Path) -> None:
    def guard(me: Process) -> Launch:
        module = (sys.executable, "-m", "bastide.supervisor.guard")
        watched = (str(record_path(run_dir)), str(me.pid), str(me.started))
        return Launch((*module, *watched, sys.executable, __file__, str(run_dir)))

    supervisor = Supervisor(
        [Service(name, lambda: Launch(PAUSE)) for name in ("first", "second")],
        run_dir,
        run_dir,
        guard=guard,
    )
    await supervise(supervisor)


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1])))
    except AlreadyRunning as error:
        sys.exit(str(error))
