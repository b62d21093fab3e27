"""Terminals, watchers and the WebSocket out of the bundle, where the image offers nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.agent.conftest import CONTROL_TOKEN, DEADLINE, RUNTIME_TOKEN, Agent, read_line
from tests.agent.wire import Wire, new_terminal

from bastide.domain.machine import AGENT_ARGV, AGENT_ENV, BUNDLE_MOUNT
from bastide.prepare.bundle import build_bundle

pytestmark = pytest.mark.host

ENTER = """
set -e
mount --bind "$1" "$2$3"
mount -t proc proc "$2/proc"
mount --bind /dev/null "$2/dev/null"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$2/dev/pts"
root=$2
shift 3
exec chroot "$root" "$@"
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle built from this checkout."""
    return build_bundle(tmp_path_factory.mktemp("state"))


def busybox_root(root: Path) -> None:
    """An image with nothing but a static busybox and its names."""
    static_root(root)
    for applet in ("sh", "stty", "vi", "top", "mkdir", "touch"):
        (root / "bin" / applet).symlink_to("busybox")


def static_root(root: Path) -> None:
    """An image that is one static program, no shell."""
    for name in (BUNDLE_MOUNT[1:], "proc", "dev/pts", "bin", "root"):
        (root / name).mkdir(parents=True)
    (root / "dev/null").touch()
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    shutil.copy("/usr/bin/busybox", root / "bin/busybox")


@contextmanager
def running(bundle: Path, root: Path, make_root: Callable[[Path], None]) -> Iterator[Agent]:
    """The agent, from the bundle, in such an image."""
    make_root(root)
    process = subprocess.Popen(
        ["unshare", "-mpf", "--kill-child", "sh", "-c", ENTER, "sh", str(bundle), str(root),
         BUNDLE_MOUNT, *AGENT_ARGV],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **AGENT_ENV},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    document = {
        "boot_id": "b",
        "control": {"host": "127.0.0.1", "port": 0, "token": CONTROL_TOKEN},
        "runtime": {"host": "127.0.0.1", "port": 0, "enabled": True, "token": RUNTIME_TOKEN},
    }
    try:
        process.stdin.write(json.dumps(document).encode())
        process.stdin.close()
        _, control, port = read_line(process.stdout.fileno()).split()
        yield Agent(process, int(control), int(port), root)
    finally:
        process.stdout.close()
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)


def test_a_busybox_image(bundle: Path, tmp_path: Path) -> None:
    """A shell, job control, vi, sizes and a watcher work with busybox alone."""
    with running(bundle, tmp_path / "rootfs", busybox_root) as agent, agent.client() as http:
        answer = http.post("/terminals", json={})
        assert answer.json()["command"] == ["/bin/sh"]
        number = int(answer.json()["id"])
        assert http.post("/watchers", json={"path": "/root"}).status_code == 201
        with Wire(agent) as wire:
            wire.until_text(type="ready", root="/root")
            wire.say(channel="terminal", type="resize", id=str(number), cols=99, rows=33)
            assert "33 99" in wire.run(number, "stty size")
            wire.run(number, "mkdir -p /root/a/b; touch /root/a/b/file")
            wire.until_text(type="change", path="/root/a/b/file", op="create")
            assert "Running" in wire.run(number, "busybox sleep 1000 & jobs")
            wire.type(number, "vi /root/text\n")
            wire.until_output(number, "- /root/text")
            for keys, wanted in (("ihello", "hello"), ("\x1b", "- /root/text"), (":wq\n", "# ")):
                start = len(wire.output[number])
                wire.type(number, keys)
                wire.until_output(number, wanted, start)
            wire.until_text(type="change", path="/root/text")
            assert "hello" in wire.run(number, "busybox cat /root/text")
            wire.type(number, "exit 4\n")
            assert wire.until_text(type="exit", id=str(number))["code"] == 4


def test_an_image_with_no_shell(bundle: Path, tmp_path: Path) -> None:
    """The default command is a clear 400; the one program there is runs on a terminal."""
    with running(bundle, tmp_path / "rootfs", static_root) as agent, agent.client() as http:
        answer = http.post("/terminals", json={})
        assert (answer.status_code, answer.json()["code"]) == (400, "no_shell")
        number = new_terminal(http, "/bin/busybox", "stty", "size")
        with Wire(agent) as wire:
            wire.until_output(number, "24 80")
            assert wire.until_text(type="exit", id=str(number))["code"] == 0
        assert http.post("/watchers", json={"path": "/"}).json()["dirs"] < 20
