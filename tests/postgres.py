"""A private PostgreSQL from Debian's binaries: its own directory, a unix socket, no network."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEADLINE = 30.0


@dataclass(frozen=True)
class Postgres:
    """A running server, reached through the socket in `directory`; its programs in `programs`."""

    directory: Path
    programs: Path

    def new_database(self) -> str:
        """A fresh, empty database; its SQLAlchemy URL."""
        name = f"test_{secrets.token_hex(6)}"
        subprocess.run(
            [str(self.programs / "createdb"), "-h", str(self.directory), "-U", "bastide", name],
            check=True,
            timeout=DEADLINE,
            env=_environment(),
        )
        return f"postgresql+asyncpg://bastide@/{name}?host={self.directory}"

    def answers(self) -> bool:
        """Whether it takes connections."""
        program = str(self.programs / "pg_isready")
        knock = [program, "-q", "-h", str(self.directory), "-U", "bastide"]
        return subprocess.run(knock, check=False, env=_environment()).returncode == 0


def binaries() -> Path | None:
    """The newest installed PostgreSQL, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def running(programs: Path) -> Iterator[Postgres]:
    """Start a server, and stop it by its pid at the end."""
    user = _user()
    directory = Path(tempfile.mkdtemp(prefix="bastide-postgres-"))
    try:
        if user is not None:
            shutil.chown(directory, user)
        data = directory / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "bastide", "--auth=trust", "-E", "UTF8", "-N"],
            check=True,
            capture_output=True,
            user=user,
            env=_environment(),
            cwd="/",
        )
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(directory),
            "fsync": "off",
        }
        process = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(data)]
            + [part for name, value in options.items() for part in ("-c", f"{name}={value}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            user=user,
            env=_environment(),
            cwd="/",
        )
        try:
            server = Postgres(directory, programs)
            _wait(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=DEADLINE)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _user() -> str | None:
    """PostgreSQL refuses to run as root: the user to be then."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _environment() -> dict[str, str]:
    """Nothing but the locale: the caller's PG* variables are no concern here."""
    return {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}


def _wait(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    """Until it answers."""
    deadline = time.monotonic() + DEADLINE
    while not server.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("PostgreSQL did not start")
        time.sleep(0.05)
