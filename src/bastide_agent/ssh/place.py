"""Where the server finds accounts, keys and settings: files in memory, of root alone.

Nothing is written on the workspace's disk. The names of the two files with accounts and of the
log's socket are those the server's own C library was given (`PLACES` in `bastide.prepare.bundle`).
"""

from __future__ import annotations

import contextlib
import os
import shutil

from bastide_agent.ssh.access import Access

BUNDLE = "/.bastide"
SERVER = f"{BUNDLE}/ssh/sshd"
TOOLS = f"{BUNDLE}/ssh/bin"
NO_SHELL = f"{TOOLS}/no-shell"
FOLDER = "/run/.bs"
ACCOUNTS = f"{FOLDER}/pw"
PASSWORDS = f"{FOLDER}/sh"
KEYS = f"{FOLDER}/keys"
HOST_KEY = f"{FOLDER}/host_key"
CONFIG = f"{FOLDER}/config"
LOG = "/run/.bl"
EMPTY = "/run/sshd"  # where the part of the server that faces strangers is locked in
NOBODY = 65532  # its user

_CONFIG = """\
Port {port}
ListenAddress 0.0.0.0
HostKey {host_key}
PidFile none
SyslogFacility AUTH
UsePAM no
AllowUsers root
PermitRootLogin yes
PubkeyAuthentication yes
AuthorizedKeysFile {keys} .ssh/authorized_keys
PasswordAuthentication {password}
KbdInteractiveAuthentication no
AllowAgentForwarding yes
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
X11Forwarding no
PrintMotd no
PrintLastLog no
UseDNS no
LoginGraceTime 60
MaxAuthTries 6
MaxSessions 64
MaxStartups 20:50:60
ClientAliveInterval 30
ClientAliveCountMax 4
AcceptEnv LANG LC_* COLORTERM TERM_PROGRAM TERM_PROGRAM_VERSION
Subsystem sftp internal-sftp
LogLevel INFO
SetEnv {environment}
"""


def write(access: Access, env: dict[str, str], shell: str, port: int) -> bool:
    """Write all files; whether the settings changed (the rest is read anew for each login).

    Raises:
        OSError: memory is full, or something else is in the way.
    """
    for folder, mode in ((FOLDER, 0o700), (EMPTY, 0o755)):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)  # noqa: PTH102  (pathlib is dear to import)
        os.chmod(folder, mode)  # noqa: PTH101
    home = env.get("HOME", "/root")
    if not os.path.isdir(home) or ":" in home or not home.isprintable():  # noqa: PTH112
        home = "/"
    _put(
        ACCOUNTS,
        f"root:x:0:0:root:{home}:{shell}\nsshd:x:{NOBODY}:{NOBODY}::{EMPTY}:{NO_SHELL}\n",
    )
    _put(PASSWORDS, f"root:{access.password_hash or '*'}:1:0:99999:7:::\n")
    _put(KEYS, "".join(f"{line}\n" for line in access.keys))
    _put(HOST_KEY, access.host_key.rstrip() + "\n")
    return _put(
        CONFIG,
        _CONFIG.format(
            port=port,
            host_key=HOST_KEY,
            keys=KEYS,
            password="yes" if access.password_hash else "no",
            environment=environment(env),
        ),
    )


def environment(env: dict[str, str]) -> str:
    """The workspace's variables as words of a line of settings, the tools at the end of PATH.

    A value that does not fit on one line is left out: the settings have no way to say it.
    """
    values = {**env, "PATH": f"{env.get('PATH', '')}:{TOOLS}".lstrip(":")}
    # The server sets these itself, as the account says.
    for name in ("HOME", "SHELL", "USER", "LOGNAME"):
        values.pop(name, None)
    return " ".join(
        f'{name}="{_escaped(value)}"'
        for name, value in values.items()
        if not {"\n", "\r", "\0"} & set(value)
    )


def remove() -> None:
    """Leave nothing of it behind."""
    shutil.rmtree(FOLDER, ignore_errors=True)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _put(path: str, content: str) -> bool:
    """Replace a file in one step; whether it is another one than before."""
    data = content.encode("utf-8", "surrogateescape")
    with contextlib.suppress(OSError), open(path, "rb") as before:  # noqa: PTH123
        if before.read(len(data) + 1) == data:
            return False
    fresh = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)  # noqa: PTH108
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123
        file.write(data)
    os.replace(fresh, path)  # noqa: PTH105
    return True
