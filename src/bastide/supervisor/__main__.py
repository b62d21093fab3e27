"""`python -m bastide.supervisor`: a supervisor in the background, its log in the log directory."""

from __future__ import annotations

import asyncio
import os
import sys

from bastide.log import configure_log
from bastide.settings import SettingsError, read_settings
from bastide.supervisor.cloud import cloud_supervisor, log_directory, make_directories
from bastide.supervisor.log import Log
from bastide.supervisor.supervisor import AlreadyRunning, supervise


def main() -> None:
    """Write to the log from the first line on, then supervise."""
    try:
        settings = read_settings()
        make_directories(settings)
    except (SettingsError, OSError) as error:
        sys.exit(f"bastide: {error}")
    log = Log(log_directory(settings) / "supervisor.log")
    log.trim()
    with log.open() as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    configure_log(settings.log)
    try:
        asyncio.run(supervise(cloud_supervisor(settings)))
    except AlreadyRunning as error:
        sys.exit(f"bastide: {error}")


if __name__ == "__main__":
    main()
