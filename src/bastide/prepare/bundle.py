"""The agent bundle: what is mounted read-only at `/.bastide` in every machine.

It needs nothing of the image, not even a C library: Debian's Python with its own loader and
libraries, the part of the standard library an agent can use as compiled modules, the agent with
h11 and wsproto, tini, ripgrep, and an SSH server with what its clients run at the other end
(probe section 9, architecture section 5).

The SSH server is Debian's, and asks for accounts where an image may have none, or none of the
kind it needs. So it has a C library of its own that looks for them, and for the system's log,
in `PLACES`, where the agent puts them in memory; a session knows nothing of that.

`state_dir/bundle/<digest>` where the digest covers every input, so an unchanged bundle is found
again in well under a second; `state_dir/bundle/current` is a symlink to the newest.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bastide.domain.machine import BUNDLE_MOUNT
from bastide.prepare.link import point
from bastide.settings import read_settings

PYTHON = Path("/usr/bin/python3.11")
STDLIB = Path("/usr/lib/python3.11")
TINI = Path("/usr/bin/tini-static")
RIPGREP = Path("/usr/bin/rg")
SSHD = Path("/usr/sbin/sshd")
SCP = Path("/usr/bin/scp")
RSYNC = Path("/usr/bin/rsync")
LOADER = "ld-linux-x86-64.so.2"
PACKAGES = ("bastide_agent", "h11", "wsproto")
TOOLS = {
    PYTHON: "python3.11", STDLIB: "libpython3.11-stdlib", TINI: "tini", RIPGREP: "ripgrep",
    SSHD: "openssh-server", SCP: "openssh-client", RSYNC: "rsync",
}  # fmt: skip

LIBC = "libc.so.6"
PLACES = {  # what the SSH server opens instead; never longer, for it is put in its place
    b"/etc/passwd": b"/run/.bs/pw",
    b"/etc/shadow": b"/run/.bs/sh",
    b"/dev/log": b"/run/.bl",
    b"/etc/nsswitch.conf": f"{BUNDLE_MOUNT}/ssh/nss".encode(),
}
NAMES = """\
passwd: files
shadow: files
group: files
hosts: files dns
"""
NO_SHELL = """\
#!{python} -IS
import sys
sys.path.append({agent!r})
from bastide_agent.ssh.shell import main
main()
"""

# Never imported by an agent; without the modules that bring big libraries, `hashlib`, `shutil`
# and `tarfile` fall back on what is compiled into Python, and load faster.
UNUSED = frozenset(
    (
        "__phello__", "__pycache__", "_aix_support.py", "_bootsubprocess.py", "_osx_support.py",
        "_pydecimal.py", "_pyio.py", "_sysconfigdata__linux_x86_64-linux-gnu.py",
        "_sysconfigdata__x86_64-linux-gnu.py", "aifc.py", "antigravity.py", "argparse.py",
        "bdb.py", "bz2.py", "calendar.py", "cgi.py", "cgitb.py", "cmd.py",
        "config-3.11-x86_64-linux-gnu", "configparser.py", "curses", "dbm", "decimal.py",
        "difflib.py", "distutils", "doctest.py", "email", "ensurepip", "fractions.py",
        "ftplib.py", "html", "http", "idlelib", "imaplib.py", "lib2to3", "lzma.py", "mailbox.py",
        "multiprocessing", "nntplib.py", "ntpath.py", "optparse.py", "pdb.py", "pickletools.py",
        "platform.py", "plistlib.py", "poplib.py", "pstats.py", "pydoc.py", "pydoc_data",
        "sitecustomize.py", "smtpd.py", "smtplib.py", "sqlite3", "ssl.py", "statistics.py",
        "sysconfig.py", "telnetlib.py", "test", "this.py", "tkinter", "tomllib",
        "trace.py", "turtle.py", "turtledemo", "unittest", "uuid.py", "venv", "webbrowser.py",
        "wsgiref", "xml", "xmlrpc", "zipapp.py", "zipfile.py", "zoneinfo",
    )
)  # fmt: skip
EXTENSIONS = frozenset(
    (
        "_asyncio", "_contextvars", "_ctypes", "_json", "_multiprocessing", "_posixshmem",
        "_queue", "_typing", "mmap", "resource", "termios",
    )
)  # fmt: skip

MAIN = """\
import sys
sys.path.append({agent!r})
from bastide_agent.main import main
main()
"""


class BundleError(Exception):
    """The bundle cannot be built; the message says what to do."""


@dataclass(frozen=True)
class _Input:
    """One file of the bundle: where it comes from, where it goes, and how."""

    source: Path
    target: str
    kind: str
    """`module`: compiled. `program`: patched to the bundle's loader and libraries. `server`: the
    same with the C library that looks for accounts elsewhere. `file`: copied."""


def _modules() -> Iterator[_Input]:
    """The standard library and the agent's packages, as source, and the agent's documents."""
    for entry in sorted(STDLIB.iterdir()):
        if entry.name in UNUSED:
            continue
        files = [entry] if entry.suffix == ".py" else sorted(entry.rglob("*.py"))
        for file in files:
            if file.is_file() and not {"test", "tests"} & set(file.relative_to(STDLIB).parts):
                yield _Input(file, f"lib/python3.11/{file.relative_to(STDLIB)}", "module")
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise BundleError(f"the Python package {name} is missing: install the project first")
        root = Path(spec.origin).parent
        for file in sorted(root.rglob("*.py")):
            if "tests" not in file.relative_to(root).parts:
                yield _Input(file, f"agent/{name}/{file.relative_to(root)}", "module")
        for file in sorted(root.rglob("*.json")):
            yield _Input(file, f"agent/{name}/{file.relative_to(root)}", "file")


def _libraries(program: Path) -> Iterator[Path]:
    """The shared libraries a program of the host needs, its loader among them."""
    listing = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    for line in listing.stdout.splitlines():
        if "not found" in line:
            raise BundleError(f"{program} lacks a library: {line.strip()}")
        found = re.search(r"(/\S+)", line)
        if found is not None:
            yield Path(found.group(1))


def _inputs() -> list[_Input]:
    """Everything that goes into the bundle."""
    missing = [package for path, package in TOOLS.items() if not path.exists()]
    if shutil.which("patchelf") is None:
        missing.append("patchelf")
    if missing:
        raise BundleError(f"missing on this host: apt-get install {' '.join(missing)}")
    extensions = [
        file
        for file in sorted((STDLIB / "lib-dynload").glob("*.so"))
        if file.name.partition(".")[0] in EXTENSIONS
    ]
    libraries = {
        library.name: library
        for program in (PYTHON, RIPGREP, SSHD, SCP, RSYNC, *extensions)
        for library in _libraries(program)
    }
    return [
        *_modules(),
        *(_Input(file, f"lib/python3.11/lib-dynload/{file.name}", "file") for file in extensions),
        *(_Input(path, f"lib/{name}", "file") for name, path in sorted(libraries.items())),
        _Input(PYTHON, "bin/python3.11", "program"),
        _Input(RIPGREP, "bin/rg", "program"),
        _Input(TINI, "bin/tini", "file"),
        _Input(SSHD, "ssh/sshd", "server"),
        _Input(libraries[LIBC], f"ssh/lib/{LIBC}", "file"),
        # At the end of the PATH of sessions, for clients that run them there.
        _Input(SCP, "ssh/bin/scp", "server"),
        _Input(RSYNC, "ssh/bin/rsync", "program"),
    ]


def _digest(inputs: list[_Input]) -> str:
    """A hash of every input, of where it goes, and of this recipe."""
    total = hashlib.sha256(Path(__file__).read_bytes())
    for item in inputs:
        total.update(f"\0{item.kind}\0{item.target}\0".encode())
        total.update(hashlib.sha256(item.source.read_bytes()).digest())
    return total.hexdigest()[:32]


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")


def _close_loader(loader: Path) -> None:
    """Make the loader deaf to the image's `/etc/ld.so.preload` and `/etc/ld.so.cache`."""
    raw = loader.read_bytes()
    for name in (b"/etc/ld.so.preload", b"/etc/ld.so.cache"):
        nowhere = f"{BUNDLE_MOUNT}/none".encode().ljust(len(name), b"\0")
        raw = raw.replace(name + b"\0", nowhere + b"\0")
    loader.write_bytes(raw)


def _move_places(libc: Path) -> None:
    """Let this C library look in `PLACES`."""
    raw = libc.read_bytes()
    for name, other in PLACES.items():
        if raw.count(name + b"\0") != 1:
            raise BundleError(f"{LIBC} does not hold {name.decode()} once: cannot be prepared")
        raw = raw.replace(name + b"\0", other.ljust(len(name), b"\0") + b"\0")
    libc.write_bytes(raw)


def _write_ssh(root: Path) -> None:
    """What the SSH server needs beside its program."""
    _move_places(root / "ssh/lib" / LIBC)
    (root / "ssh/nss").write_text(NAMES)
    shell = NO_SHELL.format(python=f"{BUNDLE_MOUNT}/bin/python3.11", agent=f"{BUNDLE_MOUNT}/agent")
    (root / "ssh/bin/no-shell").write_text(shell)


def _compile(root: Path) -> None:
    """Modules to `.pyc` beside where the source was, without docstrings; the source goes."""
    (root / "agent/main.py").write_text(MAIN.format(agent=f"{BUNDLE_MOUNT}/agent"))
    _run(
        [str(PYTHON), "-I", "-m", "compileall", "-q", "-b", "-j", "0", "-o", "2",
         "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", BUNDLE_MOUNT, str(root)]
    )  # fmt: skip
    for source in root.rglob("*.py"):
        source.unlink()


def _fill(root: Path, inputs: list[_Input]) -> None:
    """Put everything in place below `root`."""
    for item in inputs:
        target = root / item.target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.source, target)
        if item.kind in {"program", "server"}:
            own = [f"{BUNDLE_MOUNT}/ssh/lib"] if item.kind == "server" else []
            _run(
                ["patchelf", "--set-interpreter", f"{BUNDLE_MOUNT}/lib/{LOADER}", "--force-rpath",
                 "--set-rpath", ":".join([*own, f"{BUNDLE_MOUNT}/lib"]), str(target)]
            )  # fmt: skip
    _close_loader(root / "lib" / LOADER)
    _write_ssh(root)
    _compile(root)
    programs = {root / item.target for item in inputs if item.kind in {"program", "server"}}
    for path in [root, *root.rglob("*")]:
        executable = path.is_dir() or path.parent.name == "bin" or path.name == LOADER
        executable |= path in programs
        os.chown(path, 0, 0)
        path.chmod(0o555 if executable else 0o444)


def build_bundle(state_dir: Path, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Build the bundle below `state_dir`, or find it; the path of its directory.

    Safe to run several times at once; a bundle appears whole or not at all. Needs root.

    Raises:
        BundleError: a Debian package is missing or a tool failed.
    """
    base = state_dir / "bundle"
    base.mkdir(parents=True, exist_ok=True)
    inputs = _inputs()
    digest = _digest(inputs)
    done = base / digest
    with (base / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.is_dir():
            progress(f"bundle {digest} is there already")
        else:
            for stale in base.glob(".new.*"):
                shutil.rmtree(stale)
            progress(f"building bundle {digest}: {len(inputs)} files")
            fresh = Path(tempfile.mkdtemp(prefix=".new.", dir=base))
            try:
                _fill(fresh, inputs)
                fresh.rename(done)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
            size = sum(path.stat().st_size for path in done.rglob("*") if path.is_file())
            progress(f"built: {size / 2**20:.1f} MiB")
        point(base / "current", digest)
    return done


def main() -> None:
    """`python -m bastide.prepare.bundle`: build, print progress and the path."""
    parser = argparse.ArgumentParser(description="Build the agent bundle.")
    parser.add_argument("--state-dir", type=Path, help="default: state_dir of the settings")
    wanted = parser.parse_args().state_dir or read_settings().state_dir
    try:
        path = build_bundle(wanted, lambda text: print(text, file=sys.stderr))  # noqa: T201
    except BundleError as error:
        sys.exit(f"bundle: {error}")
    print(path)  # noqa: T201


if __name__ == "__main__":
    main()
