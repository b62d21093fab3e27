"""The example for curl tells no secret to whoever lists the processes of the host."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "curl" / "hello.sh"
ANSWER = json.dumps({"workspace": {"id": "ws_1"}, "token": "jwt-secret", "stdout": "Linux 6"})


def test_secrets_are_not_arguments(tmp_path: Path) -> None:
    """Client secret and token come on standard input, on every call that needs them."""
    curl = tmp_path / "curl"
    curl.write_text(
        f"#!/bin/sh\nprintf '%s ' \"$@\" >>{tmp_path}/arguments\ncat >>{tmp_path}/input\n"
        f"echo '{ANSWER}'\n"
    )
    curl.chmod(0o755)
    done = subprocess.run(
        ["sh", str(EXAMPLE)],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "BASTIDE_API_URL": "http://api",
            "BASTIDE_GATEWAY_URL": "http://gateway",
            "BASTIDE_CLIENT_ID": "id",
            "BASTIDE_CLIENT_SECRET": "key-secret",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "Linux 6"
    assert "secret" not in (tmp_path / "arguments").read_text()
    said = (tmp_path / "input").read_text().splitlines()
    assert said.count("X-Client-Secret: key-secret") == 3
    assert said.count("Authorization: Bearer jwt-secret") == 1
