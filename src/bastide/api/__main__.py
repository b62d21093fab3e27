"""`python -m bastide.api`: the API on its unix socket."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

import uvicorn

from bastide.api.app import create_app
from bastide.api.assembly import assemble
from bastide.api.directories import make_directories
from bastide.identity import UnknownUserError, become
from bastide.log import configure_log
from bastide.settings import SettingsError, settings

GRACE: Final = 10
YOUNG_OLDER_OLD: Final = (20_000, 20, 100)
"""New objects, and collections of the younger, until the collector looks for cycles."""


def main() -> int:
    """Serve until SIGTERM or SIGINT, then finish what is being answered.

    Returns:
        0 after an ordinary end, 1 when the settings are wrong, 3 when starting failed.
    """
    try:
        chosen = settings()
        make_directories(chosen)
        os.umask(0o027)
        become(chosen.user, str(chosen.state_dir))
    except (SettingsError, UnknownUserError, OSError) as error:
        sys.stderr.write(f"bastide-api: {error}\n")
        return 1
    configure_log(chosen.log)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(lambda: assemble(chosen)),
            uds=str(chosen.api_socket),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE,
        )
    )
    # What was imported is never garbage: it is not looked through again, and what requests make
    # not after every few hundred objects, of which each request makes thousands.
    gc.freeze()
    gc.set_threshold(*YOUNG_OLDER_OLD)
    # uvicorn gives the signal that ended it to whoever had it before: that end is in order.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    server.run()
    return 0 if server.started else 3


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
