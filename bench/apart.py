"""Run a benchmark as on a host of its own, as far as the network goes."""

from __future__ import annotations

import os
import subprocess
import sys

_APART = "BASTIDE_BENCH_APART"


def apart() -> None:
    """Go on in a network namespace made for this run, where no other table or link counts.

    Raises:
        SystemExit: in the process that was called first, with the code of the one that ran.
    """
    if _APART not in os.environ:
        argv = ["unshare", "--net", "--mount", sys.executable, *sys.argv]
        done = subprocess.run(argv, env=os.environ | {_APART: "1"}, check=False)
        sys.exit(done.returncode)
    # What /sys shows of interfaces belongs to the namespace it was mounted in.
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
