"""A supervisor of two toy services, run as a process by test_supervisor.py: RUN_DIR as argument."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from bastide.supervisor.process import Process
from bastide.supervisor.record import record_path
from bastide.supervisor.service import Service
from bastide.supervisor.supervisor import AlreadyRunning, Supervisor

PAUSE = (sys.executable, "-c", "import signal; signal.pause()")


async def main(run_dir: Path) -> None:
    def guard(me: Process) -> tuple[str, ...]:
        module = (sys.executable, "-m", "bastide.supervisor.guard")
        watched = (str(record_path(run_dir)), str(me.pid), str(me.started))
        return (*module, *watched, sys.executable, __file__, str(run_dir))

    supervisor = Supervisor(
        [Service("first", PAUSE), Service("second", PAUSE)], run_dir, run_dir, guard=guard
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, supervisor.stop)
    await supervisor.run()


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1])))
    except AlreadyRunning as error:
        sys.exit(str(error))
