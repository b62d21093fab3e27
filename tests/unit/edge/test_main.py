"""`python -m bastide.edge`, as systemd runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(tmp_path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "BASTIDE_CONFIG": str(tmp_path / "absent"),
        "BASTIDE_STATE_DIR": str(tmp_path / "state"),
        "BASTIDE_RUN_DIR": str(tmp_path / "run"),
        **settings,
    }
    return subprocess.run(
        [sys.executable, "-m", "bastide.edge"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("BASTIDE_LISTEN__API", "nowhere"), ("BASTIDE_NETWORK__SUBNET", "8.8.8.0/24")],
)
def test_wrong_settings_end_with_a_line(tmp_path: Path, name: str, value: str) -> None:
    """What cannot be used is told in words, and HAProxy is not started."""
    done = run(tmp_path, **{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith("bastide-edge: ")
    assert "Traceback" not in done.stderr
