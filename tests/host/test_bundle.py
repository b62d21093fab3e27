"""The agent bundle runs in root file systems that offer it nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
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


def empty_root(base: Path) -> Path:
    """A root file system with nothing but mount points."""
    for name in (BUNDLE_MOUNT[1:], "proc", "dev/pts"):
        (base / name).mkdir(parents=True)
    (base / "dev/null").touch()
    (base / "dev/ptmx").symlink_to("pts/ptmx")
    return base


def static_root(base: Path) -> Path:
    """A root file system that is one static program, no shell."""
    empty_root(base)
    for name in ("bin", "root"):
        (base / name).mkdir()
    shutil.copy("/usr/bin/busybox", base / "bin/busybox")
    return base


def busybox_root(base: Path) -> Path:
    """A root file system with nothing but a static busybox and its names."""
    static_root(base)
    for applet in ("sh", "stty", "vi", "top", "mkdir", "touch"):
        (base / "bin" / applet).symlink_to("busybox")
    return base


def enter(bundle: Path, root: Path, *argv: str) -> subprocess.Popen[bytes]:
    """Run a program in the root, in its own mount and pid namespaces."""
    return subprocess.Popen(
        ["unshare", "-mpf", "--kill-child", "sh", "-c", ENTER, "sh", str(bundle), str(root),
         BUNDLE_MOUNT, *argv],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **AGENT_ENV},
    )  # fmt: skip


@contextmanager
def running(bundle: Path, root: Path) -> Iterator[Agent]:
    """The agent, from the bundle, in such a root."""
    process = enter(bundle, root, *AGENT_ARGV)
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
        assert read_line(process.stdout.fileno()) == "READY"
        yield Agent(process, int(control), int(port), root)
    finally:
        process.stdout.close()
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)


@pytest.mark.parametrize("make_root", [empty_root, static_root, busybox_root])
def test_agent_runs_without_anything_of_the_image(
    bundle: Path, tmp_path: Path, make_root: Callable[[Path], Path]
) -> None:
    """The documented command line serves both ports whatever the root holds."""
    root = make_root(tmp_path / "rootfs")
    with running(bundle, root) as agent, agent.client() as http:
        assert http.get("/health").json() == {"status": "ok"}
        assert http.get("/runtime").json()["os"] == "linux"


def test_tools_run_without_anything_of_the_image(bundle: Path, tmp_path: Path) -> None:
    """Python and ripgrep start in an empty root, and Python can start itself."""
    root = empty_root(tmp_path / "rootfs")
    again = (
        "import os, sys, ctypes, hashlib, json, tarfile; hashlib.sha256(b'x');"
        "os.spawnv(os.P_WAIT, sys.executable, [sys.executable, '-I', '-c', 'print(1)']);"
        "print(sys.prefix, flush=True)"
    )
    out, _ = enter(
        bundle, root, f"{BUNDLE_MOUNT}/bin/python3.11", "-I", "-S", "-c", again
    ).communicate()
    assert out.decode().split() == ["1", BUNDLE_MOUNT]
    out, _ = enter(bundle, root, f"{BUNDLE_MOUNT}/bin/rg", "--version").communicate()
    assert out.startswith(b"ripgrep ")


def test_bundle_is_readonly_and_found_again(bundle: Path) -> None:
    """Root owns everything, nobody can write, everybody can read; a second build makes nothing."""
    for path in [bundle, *bundle.rglob("*")]:
        info = path.lstat()
        assert info.st_uid == info.st_gid == 0
        assert not stat.S_IMODE(info.st_mode) & 0o222
        assert stat.S_IMODE(info.st_mode) & 0o444 == 0o444
        assert path.suffix != ".py"
    made = bundle.stat().st_ctime_ns
    assert build_bundle(bundle.parents[1]) == bundle
    assert bundle.stat().st_ctime_ns == made
    assert (bundle.parent / "current").resolve() == bundle
    assert sorted(path.name for path in bundle.parent.iterdir()) == sorted(
        [".lock", "current", bundle.name]
    )


def test_a_busybox_image(bundle: Path, tmp_path: Path) -> None:
    """A shell, job control, vi, sizes and a watcher work with busybox alone."""
    with running(bundle, busybox_root(tmp_path / "rootfs")) as agent, agent.client() as http:
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
    with running(bundle, static_root(tmp_path / "rootfs")) as agent, agent.client() as http:
        answer = http.post("/terminals", json={})
        assert (answer.status_code, answer.json()["code"]) == (400, "no_shell")
        number = new_terminal(http, "/bin/busybox", "stty", "size")
        with Wire(agent) as wire:
            wire.until_output(number, "24 80")
            assert wire.until_text(type="exit", id=str(number))["code"] == 0
        assert http.post("/watchers", json={"path": "/"}).json()["dirs"] < 20
