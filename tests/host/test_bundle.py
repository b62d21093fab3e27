"""The agent bundle runs in root file systems that offer it nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.agent.conftest import CONTROL_TOKEN, DEADLINE, RUNTIME_TOKEN, read_line

from bastide.domain.machine import AGENT_ARGV, AGENT_ENV, BUNDLE_MOUNT
from bastide.prepare.bundle import build_bundle

pytestmark = pytest.mark.host

ENTER = """
set -e
mount --bind "$1" "$2$3"
mount -t proc proc "$2/proc"
mount --bind /dev/null "$2/dev/null"
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
    for name in (BUNDLE_MOUNT[1:], "proc", "dev"):
        (base / name).mkdir(parents=True)
    (base / "dev/null").touch()
    return base


def busybox_root(base: Path) -> Path:
    """A root file system with nothing but a static busybox."""
    empty_root(base)
    (base / "bin").mkdir()
    (base / "root").mkdir()
    shutil.copy("/usr/bin/busybox", base / "bin/busybox")
    for applet in ("sh", "echo", "true"):
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


@pytest.mark.parametrize("make_root", [empty_root, busybox_root])
def test_agent_runs_without_anything_of_the_image(
    bundle: Path, tmp_path: Path, make_root: object
) -> None:
    """The documented command line serves both ports in an empty and in a busybox-only root."""
    assert callable(make_root)
    root = make_root(tmp_path / "rootfs")
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
        _, _, port = read_line(process.stdout.fileno()).split()
        assert read_line(process.stdout.fileno()) == "READY"
        headers = {"Authorization": f"Bearer {RUNTIME_TOKEN}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            assert client.get("/health").json() == {"status": "ok"}
            assert client.get("/runtime").json()["os"] == "linux"
    finally:
        process.stdout.close()
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)


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
