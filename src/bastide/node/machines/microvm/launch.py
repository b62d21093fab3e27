"""How an emulator is started: its files opened, its jail described, its sockets made."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bastide.domain.machine import AGENT_ENV, MachineSpec
from bastide.node.errors import BootFailed, ImageUnavailable
from bastide.node.machines.boot import Clock, boot_document
from bastide.node.machines.directory import BootDirectory
from bastide.node.machines.host import Host
from bastide.node.machines.idrange import IdRange
from bastide.node.machines.microvm import channel
from bastide.node.machines.microvm.bundle import bundle_disk
from bastide.node.machines.microvm.ground import Places, Shape
from bastide.node.machines.microvm.guest import (
    BootDocument,
    GuestFiles,
    GuestNetwork,
    new_seed,
)
from bastide.node.machines.microvm.jail import FIRST, Jail
from bastide.node.machines.microvm.program import INITRD, VMLINUX
from bastide.node.machines.microvm.qemu import argv
from bastide.node.network import tap
from bastide.node.store import BootRecord

QMP, CONSOLE, BOOT = "qmp.sock", "console.sock", "boot.sock"
TAP_AT = FIRST
"""Number of the tap among the emulator's files."""

SOCKETS = (QMP, CONSOLE, BOOT)
_SOCKETS_AT = TAP_AT + 1
_FILES_AT = _SOCKETS_AT + len(SOCKETS)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Launch:
    """One start of the machine `spec` as `shape`.

    `incoming`: it waits for its memory. `warm`: its agent begins before it is told who it is.
    """

    host: Host
    directory: BootDirectory
    spec: MachineSpec
    digest: str
    ids: IdRange
    bundle: Path
    shape: Shape
    places: Places
    incoming: bool = False
    warm: bool = False

    async def create(self, clock: Clock, output: int) -> int:
        """Have everything in place, the emulator not begun yet; its id on the host.

        `output` takes what it prints itself. The machine is linked, under the policy of `spec`.

        Raises:
            BootFailed, ImageUnavailable, NotReady, NoSpace: something is not to be had.
        """
        machine = self.spec.id
        with ExitStack() as held:
            with clock.stage("disk"):
                await asyncio.to_thread(self._prepare_disk)
            with clock.stage("rootfs"):
                files = await asyncio.to_thread(self._open)
                for descriptor in files:
                    held.callback(os.close, descriptor)
                sockets = [
                    held.enter_context(channel.listening(self.directory.path, name))
                    for name in SOCKETS
                ]
                self._configure(files[1])
            with clock.stage("network"):
                link = tap.opened()
                held.callback(os.close, link)
                await self.host.network.attach_tap(machine, link, self.spec.network)
            with clock.stage("create"):
                nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                held.callback(os.close, nothing)
                return await self.host.runc.create(
                    machine, self.directory.path, nothing, output,
                    link, *(each.fileno() for each in sockets), *files,
                )  # fmt: skip

    def _prepare_disk(self) -> None:
        self.directory.make()
        disks, machine = self.host.disks, self.spec.id
        disks.bring(machine)
        if self.warm or not self.incoming:  # else it is as its memory knows it
            disks.grow(machine, self.spec.resources.disk_mb)

    def _open(self) -> list[int]:
        """Image, disk and bundle, opened. All are ours: nobody else can put anything there."""
        image = self.host.images.directory / f"{self.digest}.erofs"
        opened: list[int] = []
        try:
            for path, flags in (
                (image, _READ),
                (self.host.disks.path(self.spec.id), _WRITE),
                (bundle_disk(self.bundle, self.bundle.parent), _READ),
            ):
                opened.append(os.open(path, flags))
        except OSError as error:
            for descriptor in opened:
                os.close(descriptor)
            if error.filename == str(image):
                raise ImageUnavailable(
                    f"the image {self.digest[:12]} cannot be read: {error.strerror}"
                ) from error
            raise BootFailed(f"{error.filename} cannot be opened: {error.strerror}") from error
        return opened

    def _configure(self, disk: int) -> None:
        """Write the jail down, with the emulator's arguments in it."""
        shape, host = self.shape, self.host
        jail = Jail(
            home=self.places.home,
            vmlinux=self.places.kernel.vmlinux,
            initrd=self.places.kernel.initrd,
            ids=self.ids,
            cpus=min(shape.cpus, self.spec.resources.cpus),
            memory_mb=shape.memory_mb,
            disk_bytes=os.fstat(disk).st_size,
            accelerator=shape.accelerator,
            cgroup=host.cgroups.path(self.spec.id),
            limits_swap=host.cgroups.limits_swap,
        )
        sets = dict(zip(("image", "disk", "bundle"), range(1, 4), strict=True))
        arguments = argv(
            GuestFiles(
                kernel=Path("/", VMLINUX),
                initrd=Path("/", INITRD),
                image=_set(sets["image"]),
                disk=_set(sets["disk"]),
                bundle=_set(sets["bundle"]),
            ),
            cpus=shape.cpus,
            memory_mb=shape.memory_mb,
            accelerator=shape.accelerator,
            tap_fd=TAP_AT,
            qmp_fd=_SOCKETS_AT,
            console_fd=_SOCKETS_AT + 1,
            boot_port_fd=_SOCKETS_AT + 2,
            incoming=self.incoming,
            warm=self.warm,
        )
        for number in sets.values():
            arguments += ["-add-fd", f"fd={_FILES_AT + number - 1},set={number}"]
        self.directory.configure(jail.configuration(arguments))

    def document(self, record: BootRecord) -> bytes:
        """What the guest is told of the boot `record`; send it at once, for it tells the time."""
        host = self.host
        place = host.network.place(self.spec.id)
        return BootDocument(
            hostname=self.spec.hostname,
            argv=host.argv,
            agent=boot_document(self.spec, record.boot_id, record.token, seed=new_seed()),
            env=AGENT_ENV,
            network=GuestNetwork(
                address=place.address,
                gateway=place.gateway,
                mac=place.mac,
                mtu=place.mtu,
                resolvers=host.network.nameservers,
            ),
            pids=self.spec.resources.pids,
        ).to_bytes()


def _set(number: int) -> Path:
    """What the emulator calls a file that it was given open."""
    return Path("/dev/fdset", str(number))
