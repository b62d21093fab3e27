"""`python -m bastide.edge`: write what HAProxy reads and become it, for systemd."""

from __future__ import annotations

import os
import sys

from bastide.edge.haproxy import EdgeError, prepare
from bastide.settings import SettingsError, settings


def main() -> None:
    """Replace this process by HAProxy."""
    try:
        launch = prepare(settings())
    except (SettingsError, EdgeError) as error:
        sys.exit(f"bastide-edge: {error}")
    os.execve(launch.argv[0], launch.argv, {"PATH": os.defpath, **launch.environment})  # noqa: S606


if __name__ == "__main__":
    main()
