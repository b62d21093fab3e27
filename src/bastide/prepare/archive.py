"""Debian's archive as this host is configured to reach it, whatever mirror that is."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FORMAT = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"


class PrepareError(Exception):
    """Something could not be had; the text says what, why, and what to do."""


@dataclass(frozen=True)
class Archive:
    """Base addresses of the archive and of its security updates, from the host's own apt."""

    main: str
    security: str | None

    def sources(self, suite: str) -> list[str]:
        """The lines of a sources.list for a released suite, with its updates."""
        lines = [f"deb {self.main} {name} main" for name in (suite, f"{suite}-updates")]
        if self.security:
            lines.append(f"deb {self.security} {suite}-security main")
        return lines


def host_archive() -> Archive:
    """The archive of this host.

    Raises:
        PrepareError: apt is not configured for Debian, or its lists were never fetched.
    """
    output = run(["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"])
    found: dict[str, str] = {}
    for line in output.splitlines():
        origin, label, uri = line.split("|", 2)
        if origin == "Debian":
            found.setdefault(label, uri)
    if "Debian" not in found:
        raise PrepareError(
            "apt knows no Debian archive: put one in /etc/apt/sources.list.d and run apt-get update"
        )
    return Archive(main=found["Debian"], security=found.get("Debian-Security"))


def apt_get(scratch: Path, suite: str) -> list[str | Path]:
    """apt-get for one suite, with lists, cache, sources and status of its own below `scratch`.

    The host's stay as they are; nothing counts as installed.

    Raises:
        PrepareError: the archive's keys are missing, or apt knows no archive.
    """
    if not KEYRING.exists():
        raise PrepareError(f"{KEYRING} is missing: apt-get install debian-archive-keyring")
    scratch.chmod(0o755)
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    sources, status = scratch / "sources.list", scratch / "status"
    sources.write_text(f"deb [signed-by={KEYRING}] {host_archive().main} {suite} main\n")
    status.touch()
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": scratch / "lists",
        "Dir::State::status": status,
        "Dir::Cache": scratch / "cache",
        "Acquire::Languages": "none",
        "APT::Update::Post-Invoke-Success::": "/bin/true",
    }
    return ["apt-get", "-q", *(part for k, v in options.items() for part in ("-o", f"{k}={v}"))]


def run(command: Sequence[str | Path], cwd: Path | None = None, timeout: float = 1800) -> str:
    """Run a program to its end and return what it printed.

    Raises:
        PrepareError: it is not installed, failed, or took too long; with its last lines.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise PrepareError(f"{name} is not installed: apt-get install it and try again") from None
    except subprocess.TimeoutExpired:
        raise PrepareError(f"{name} did not end within {timeout:.0f} s") from None
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise PrepareError(f"{name} failed with status {done.returncode}:\n{last}")
    return done.stdout
