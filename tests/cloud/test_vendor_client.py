"""The vendor's npm client, unchanged, does whole sessions against the running cloud."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

pytestmark = pytest.mark.cloud

SESSION = Path(__file__).parents[1] / "clients" / "node"


class Cloud(Protocol):
    """What this test needs of the `cloud` fixture."""

    @property
    def environment(self) -> dict[str, str]:
        """`OBLIEN_BASE_URL`, `OBLIEN_GATEWAY_URL`, `OBLIEN_CLIENT_ID`, `OBLIEN_CLIENT_SECRET`."""


@pytest.mark.parametrize(
    "script",
    [
        "session.mjs",
        "runtime.mjs",
        "lifecycle.mjs",
        "network.mjs",
        "snapshots.mjs",
        "archives.mjs",
    ],
)
def test_vendor_client(cloud: Cloud, script: str) -> None:
    """A workspace's whole life, and the whole runtime API in one, as its users write them."""
    run_session(cloud, script)


def test_vendor_client_with_a_kernel_of_its_own(cloud: Cloud) -> None:
    """A microVM's life: create, exec, files, pause, snapshot, restore, stop, start, delete."""
    run_session(cloud, "microvm.mjs")


def run_session(cloud: Cloud, script: str, **more: str) -> None:
    """Run a script of the vendor's client; it must succeed. `more` are variables for it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed (script/test installs them)")
    environment = {**os.environ, **cloud.environment, **more}
    lock = SESSION / "package-lock.json"
    installed = SESSION / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(["npm", "ci", "--no-progress"], cwd=SESSION, check=True, timeout=300)
    run = subprocess.run(
        ["node", "--test", "--test-reporter=spec", script],
        cwd=SESSION,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout[-20_000:]}\n{run.stderr[-2_000:]}"
