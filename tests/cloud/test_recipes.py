"""Images of the catalogue: built from the package registries, booted, and a command run in them.

script/test does so with the smallest; `script/drill recipes` with all, each built anew.
"""

from __future__ import annotations

import os

import pytest
from tests.cloud.cloud import Cloud

from bastide.client import Bastide

pytestmark = pytest.mark.cloud

WANTED = os.environ.get("BASTIDE_TEST_RECIPES", "busybox").split(",")
ANEW = "BASTIDE_TEST_RECIPES" in os.environ
PROOFS = {
    "busybox": [("busybox | head -1", "BusyBox v1.35"), ("ls -l /bin/vi", "busybox")],
    "debian-12": [("cat /etc/debian_version", "12."), ("curl --version", "curl 7.")],
    "python-3.11": [
        ("python --version", "Python 3.11"),
        ("python -m venv /tmp/v && /tmp/v/bin/python -m pip --version", "pip "),
        (
            "printf 'int main(){return 7;}' > /tmp/a.c && cc -o /tmp/a /tmp/a.c; /tmp/a; echo $?",
            "7",
        ),
        ("git --version", "git version 2"),
    ],
    "node-20": [
        ("node --version", "v20."),
        ("node -e 'console.log(crypto.randomUUID().length, 6 * 7)'", "36 42"),
        ("npm --version", "10."),
        ("npx --version", "10."),
        ("cd /tmp && npm init -y > /dev/null && cat package.json", '"version"'),
    ],
}


@pytest.mark.parametrize("image", WANTED)
def test_a_recipe_is_built_and_runs(cloud: Cloud, client: Bastide, image: str) -> None:
    """It is listed with what is in it, and does what its name says."""
    if ANEW:
        cloud.run("image", "remove", image, "--yes", check=False)
        cloud.run("image", "build", image, timeout=1500)
    made = client.workspaces.create(image, disk_size_mb=512)
    try:
        runtime = client.workspaces.runtime(made.id)
        for line, shown in PROOFS[image]:
            done = runtime.exec.run(["sh", "-c", line]).check()
            assert shown in done.stdout, (line, done.stdout)
    finally:
        client.workspaces.delete(made.id)
    found = next(one for one in client.images.list() if one.id == image)
    assert found.ready
    assert found.software
