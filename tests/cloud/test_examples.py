"""The examples of the README run as they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cloud.cloud import Cloud, clean_environment

pytestmark = pytest.mark.cloud
EXAMPLES = Path(__file__).parents[2] / "examples"
DEADLINE = 300.0


def run(cloud: Cloud, *argv: str, cwd: Path) -> str:
    """The output of a program that sees the cloud as `eval "$(bastide env)"` shows it."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=clean_environment() | cloud.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_python(cloud: Cloud) -> None:
    """Create, write, run, stream and delete with the Python client."""
    output = run(cloud, sys.executable, "hello.py", cwd=EXAMPLES / "python")
    assert "500000500000" in output
    assert output.endswith("step 1\nstep 2\nstep 3\nended with code 0\n")


def test_curl(cloud: Cloud) -> None:
    """The bare HTTP API from a shell."""
    assert "Linux" in run(cloud, "sh", "hello.sh", cwd=EXAMPLES / "curl")


def test_typescript(cloud: Cloud, tmp_path: Path) -> None:
    """The vendor's client, written in TypeScript."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed (script/test installs it)")
    for name in ("hello.ts", "package.json", "package-lock.json"):
        shutil.copy(EXAMPLES / "typescript" / name, tmp_path)
    run(cloud, "npm", "ci", "--no-audit", "--no-fund", cwd=tmp_path)
    assert "hello from TypeScript" in run(cloud, "npm", "start", "--silent", cwd=tmp_path)


def test_no_example_leaves_a_workspace(cloud: Cloud) -> None:
    """Each example deletes what it made; that goes on after it has ended."""
    end = time.monotonic() + DEADLINE
    while left := [
        item["name"] for item in cloud.json("workspace", "list") if item["name"].endswith("example")
    ]:
        assert time.monotonic() < end, left
