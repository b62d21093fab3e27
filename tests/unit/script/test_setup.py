"""script/setup.sh: what it does to the host while packages are installed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[3] / "script/setup.sh"
HOLD = 'POLICY=$1; . "$2"; hold_daemons; echo held; '


def bash(policy: Path, then: str) -> subprocess.Popen[str]:
    """A shell that holds daemons back, and then does something."""
    return subprocess.Popen(
        ["bash", "-Eeuo", "pipefail", "-c", HOLD + then, "setup", policy, SETUP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy-rc.d"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_daemons_are_let_go_when_it_is_ended(policy: Path, number: signal.Signals) -> None:
    """Ended in the middle of an installation, it takes its file away."""
    with bash(policy, "cat >/dev/null; sleep 600") as shell:
        assert shell.stdout is not None
        assert select.select([shell.stdout], [], [], 30)[0]
        assert shell.stdout.readline() == "held\n"
        assert subprocess.run([policy], check=False).returncode == 101
        os.killpg(shell.pid, number)  # as a terminal does
        assert shell.stdin is not None
        shell.stdin.close()  # bash may have caught it just before it began to wait for cat
        shell.wait(30)
    assert not policy.exists()


def test_daemons_are_let_go_when_a_step_fails(policy: Path) -> None:
    """So it does after an error nobody foresaw."""
    with bash(policy, "false") as shell:
        shell.communicate(timeout=30)
    assert not policy.exists()


def test_what_a_killed_run_left_is_ours_to_remove(policy: Path) -> None:
    """A run that could clean up nothing does not leave the host without daemons for good."""
    with bash(policy, "kill -9 $$") as shell:
        shell.communicate(timeout=30)
    assert policy.exists()
    with bash(policy, "release_daemons; exit 0") as shell:
        shell.communicate(timeout=30)
    assert not policy.exists()


def test_a_policy_of_the_host_is_left_alone(policy: Path) -> None:
    """What somebody else has put there stays."""
    policy.write_text("#!/bin/sh\nexit 0\n")
    with bash(policy, "release_daemons; exit 0") as shell:
        shell.communicate(timeout=30)
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_no_file_with_a_name_others_can_foresee() -> None:
    """Root writes to no fixed name where everyone may make links."""
    for script in SETUP.parent.iterdir():
        assert ">/tmp/" not in script.read_text().replace(" ", "")
