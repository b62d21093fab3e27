"""OpenSSH's own clients, as people run them, against the bastion of a cloud."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bastide.client import SshStatus

DEADLINE = 60.0


@dataclass(frozen=True)
class Me:
    """One person: a home with a key and known hosts of its own."""

    home: Path

    @classmethod
    def at(cls, home: Path) -> Me:
        """A new person."""
        folder = home / ".ssh"
        folder.mkdir(mode=0o700, parents=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id_ed25519")],
            check=True,
        )
        return cls(home)

    @property
    def key(self) -> Path:
        """The private key."""
        return self.home / ".ssh" / "id_ed25519"

    @property
    def public(self) -> str:
        """The public key, one line."""
        return self.key.with_suffix(".pub").read_text().strip()

    @property
    def config(self) -> Path:
        """Settings that stand for a home directory: OpenSSH takes that from the accounts."""
        path = self.home / ".ssh" / "config"
        path.write_text(
            f'Host *\n  IdentityFile "{self.key}"\n  IdentitiesOnly yes\n'
            f'  UserKnownHostsFile "{self.home}/.ssh/known_hosts"\n'
            "  StrictHostKeyChecking accept-new\n  ConnectTimeout 20\n"
        )
        return path

    def known_hosts(self) -> str:
        """The hosts seen so far."""
        return (self.home / ".ssh" / "known_hosts").read_text()


@dataclass(frozen=True)
class Way:
    """A person's way to a workspace: the command the API printed, taken apart."""

    me: Me
    target: str
    jump: str

    @classmethod
    def of(cls, me: Me, status: SshStatus) -> Way:
        """By the printed command, `ssh root@ID -J root@BASTION`."""
        assert status.connection is not None
        program, target, option, jump = status.connection.command.split()
        assert (program, option) == ("ssh", "-J")
        return cls(me, target, jump)

    def argv(self, program: str, *options: str) -> list[str]:
        """A program of OpenSSH by this way, up to its targets."""
        return [program, "-F", str(self.me.config), "-J", self.jump, *options]

    def ssh(self, *command: str, options: tuple[str, ...] = (), **how: object) -> Done:
        """Run a command there."""
        argv = self.argv("ssh", "-o", "BatchMode=yes", *options)
        return run([*argv, self.target, *command], **how)  # type: ignore[arg-type]

    def start(self, *options: str, command: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Begin a connection that goes on."""
        return subprocess.Popen(
            [*self.argv("ssh", "-o", "BatchMode=yes", *options), self.target, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def shell_word(self) -> str:
        """For programs that start ssh themselves, as rsync does."""
        return shlex.join(self.argv("ssh", "-o", "BatchMode=yes"))


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    out: str
    err: str


def run(
    argv: list[str], *, text: str = "", environment: dict[str, str] | None = None,
    timeout: float = DEADLINE,
) -> Done:  # fmt: skip
    """Run to the end, `text` on standard input, without a terminal."""
    done = subprocess.run(
        argv,
        input=text,
        capture_output=True,
        text=True,
        env={**clean(), **(environment or {})},
        timeout=timeout,
        check=False,
        start_new_session=True,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def clean() -> dict[str, str]:
    """This environment without anybody's agent."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}


def asking(password: str, folder: Path) -> dict[str, str]:
    """Let ssh have a password wherever it asks, as a person would type it twice."""
    script = folder / "askpass"
    script.write_text(f"#!/bin/sh\nprintf '%s\\n' {shlex.quote(password)}\n")
    script.chmod(0o700)
    return {"SSH_ASKPASS": str(script), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
