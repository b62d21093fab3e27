"""A workspace as seen from inside: a Python module of the tests, run by the workspace's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bastide.client import Bastide, ExecResult, Runtime, Workspace

ATTEMPTS = (Path(__file__).parents[1] / "security" / "attempts.py").read_text()


class Inside:
    """Runs functions of `tests/security/attempts.py` in a workspace, through the gateway."""

    def __init__(self, client: Bastide, workspace: Workspace) -> None:
        self.client = client
        self.id = workspace.id
        self.runtime: Runtime = client.workspaces.runtime(workspace.id)

    @property
    def address(self) -> str:
        """Its address in the network of the workspaces."""
        return self.sh("hostname -I").stdout.split()[0]

    def sh(self, line: str, *, timeout: float | None = 60) -> ExecResult:
        """Run a line of shell."""
        return self.runtime.exec.run(line, timeout=timeout)

    def run(self, name: str, *, timeout: float = 60, **arguments: object) -> ExecResult:
        """Run a function that may not come to its end."""
        argv = ["python3", "-I", "-c", ATTEMPTS, name, json.dumps(arguments)]
        return self.runtime.exec.run(argv, timeout=timeout)

    def call(self, name: str, *, timeout: float = 60, **arguments: object) -> Any:
        """What a function returns."""
        done = self.run(name, timeout=timeout, **arguments).check()
        return json.loads(done.stdout)
