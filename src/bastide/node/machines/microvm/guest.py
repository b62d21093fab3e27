"""What a guest is made of, what it is told, and what it says: the two ends of the boot port.

The boot port is a virtio-serial port of the guest and, on the host, a unix socket. Nothing on it
is in `/proc/cmdline`, and it carries secrets only to the guest.

    guest → node   `BASTIDE HELLO`           kernel and devices stand; the guest waits. Here a warm
                                             snapshot is taken, and goes on here when restored.
    node → guest   the boot document         answered at once, for it tells the time
    guest → node   what process 1 prints     up to and with `READY`, as a container's output
    node → guest   `stop`                    one line: SIGTERM to process 1
    guest → node   `BASTIDE SIGNAL n`        the agent's last word, see `farewell`.
    guest → node   `BASTIDE EXIT code kills` process 1 ended; the guest syncs and powers off.
                                             `kills` counts processes ended for want of memory.

A guest's clock stands still with it, and guests restored from one snapshot have one random pool.
So whenever a guest goes on after a pause or a restore, and once it is ready, the node tells its
agent `going_on()`, with `POST /control/wake` or as part of `renew`. A boot document's agent part
carries a `seed` (`boot_document(..., seed=new_seed())`), which the agent uses before all else.

A **warm** guest (`command_line(..., warm=True)`) starts its agent before HELLO, with no disk in
use: its memory is saved there, and restored for machines with other disks. The disk's size may
differ; kernel, image, bundle, cores and memory may not.

Everything the guest says is hostile: `Conversation` bounds it, and nothing is believed but that
this workspace said so.

Process 1 sees the root of the container tier: image below, disk above, the bundle at
`/.bastide`, in a process-id, mount, host-name and IPC namespace of its own, as the full root of
its own kernel. So a disk that ran here was written by a kernel that is not ours: whoever mounts it
on the host must take it for hostile.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from bastide.node.errors import BootFailed
from bastide.node.machines import farewell

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
STOP = b"stop\n"
MOST_OUTPUT = 64 * 1024
"""Bytes of output of process 1 that are taken until it is ready."""

_MOST_LINE = 4096
_WORD = b"BASTIDE "
_EXIT = re.compile(rb"EXIT (\d{1,3}) (\d{1,9})")


def new_seed() -> str:
    """For the random pool of one guest, once: 64 bytes in hex."""
    return secrets.token_hex(64)


def going_on() -> dict[str, object]:
    """What the agent of a guest is told when the guest goes on: the time, and randomness."""
    return {"clock": time.time_ns(), "seed": new_seed()}


@dataclass(frozen=True)
class GuestFiles:
    """The files of one guest, by the names QEMU opens them with (in its jail).

    `kernel`, `initrd`, `image` and `bundle` (both erofs) are only read; `disk` is raw ext4.
    """

    kernel: Path
    initrd: Path
    image: Path
    disk: Path
    bundle: Path


@dataclass(frozen=True)
class GuestNetwork:
    """What the guest gives its `eth0`: one address, all else by the gateway.

    `mac` is the guest's own; it is set by the guest, for a restored guest has that of another.
    """

    address: IPv4Address
    gateway: IPv4Address
    mac: str
    resolvers: tuple[str, ...] = ()
    mtu: int = 1500

    def __post_init__(self) -> None:
        """Refuse what the guest would read as something else."""
        for resolver in self.resolvers:
            IPv4Address(resolver)
        if not MAC.fullmatch(self.mac):
            raise ValueError(f"not a hardware address: {self.mac!r}")


@dataclass(frozen=True)
class BootDocument:
    """What a guest is told about this boot. `agent` goes to the standard input of process 1.

    `argv` and `env` are of process 1, `pids` the most processes. `seed` and the time are made anew
    for each: make one per boot.
    """

    hostname: str
    argv: tuple[str, ...]
    agent: bytes = field(repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    network: GuestNetwork | None = None
    pids: int = 1024
    seed: str = field(default_factory=new_seed, repr=False)

    def to_bytes(self) -> bytes:
        """The document on the wire, with the time of now: send it at once.

        Lines of `key value`, the last of them `agent LENGTH`, and then so many bytes.

        Raises:
            ValueError: a value cannot be written on a line.
        """
        if not HOSTNAME.fullmatch(self.hostname):
            raise ValueError(f"not a host name: {self.hostname!r}")
        lines = [
            ("hostname", self.hostname),
            ("pids", str(self.pids)),
            ("seed", self.seed),
        ]
        if self.network is not None:
            net = self.network
            lines += [
                ("mac", net.mac),
                ("mtu", str(net.mtu)),
                ("address", str(net.address)),
                ("gateway", str(net.gateway)),
                *(("resolver", resolver) for resolver in net.resolvers),
            ]
        for name, value in self.env.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"not a name of a variable: {name!r}")
            lines.append(("env", f"{name}={value}"))
        lines += [("arg", argument) for argument in self.argv]
        lines.append(("time", str(round(time.time()))))
        lines.append(("agent", str(len(self.agent))))
        for key, value in lines:
            if any(c in value for c in "\n\r\0\\") or len(value) > _MOST_LINE:
                raise ValueError(f"{key} cannot be told to a guest: {value[:80]!r}")
        return "".join(f"{key} {value}\n" for key, value in lines).encode() + self.agent


@dataclass(frozen=True)
class GuestExit:
    """How process 1 ended, as the guest tells: its code, 128 + n for a signal."""

    code: int
    oom_kills: int


class Conversation:
    """What a guest has said on its boot port so far, bounded.

    `signal` ended the main command, as the agent says; `exit` is the word of the guest's init.
    """

    def __init__(self) -> None:
        self.hello = False
        self.ready = False
        self.exit: GuestExit | None = None
        self.signal: int | None = None
        self.output = b""
        self._line = b""

    def feed(self, data: bytes) -> None:
        """Take in the next bytes. Once ready, only the exit counts and the rest is dropped.

        Raises:
            BootFailed: more than the bound was printed before it was ready.
        """
        for piece in data.splitlines(keepends=True):
            self._line += piece
            if self._line.endswith(b"\n"):
                line, self._line = self._line, b""
                self._take(line)
            elif len(self._line) > _MOST_LINE:
                line, self._line = self._line, b""
                self._print(line)

    def end(self) -> None:
        """The guest is gone: what it said last may lack its end of line."""
        line, self._line = self._line, b""
        if line:
            self._take(line)

    def _take(self, line: bytes) -> None:
        bare = line.rstrip(b"\r\n")
        if bare == _WORD + b"HELLO":
            self.hello = True
        elif bare.startswith(_WORD) and (found := _EXIT.fullmatch(bare[len(_WORD) :])):
            self.exit = GuestExit(int(found[1]), int(found[2]))
        elif found := farewell.SIGNAL.fullmatch(bare):
            self.signal = int(found[1])
        else:
            self._print(line)
            self.ready = self.ready or bare == b"READY"

    def _print(self, line: bytes) -> None:
        if self.ready:
            return
        self.output = (self.output + line)[:MOST_OUTPUT]
        if len(self.output) >= MOST_OUTPUT:
            raise BootFailed(
                f"the machine printed {MOST_OUTPUT // 1024} KiB without becoming ready"
            )
