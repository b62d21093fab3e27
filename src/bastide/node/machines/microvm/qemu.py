"""The arguments of QEMU for one guest: a pure function, no file is opened and nothing started.

The three sockets are unix sockets that listen already: the node makes them in a directory of its
own and QEMU inherits them, so its jail needs no path for them, and a node that comes back
connects again. QEMU waits until somebody has connected to the console and the boot port, so that
no word is lost: connect to both before it is started.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import time
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from bastide.node.machines.microvm.guest import GuestFiles

BOOT_PORT = "bastide.boot"
MAC = "02:00:00:00:00:01"
"""Of every guest until it is told its own: each is alone on its link."""

TRIAL = "BASTIDE TRIAL"
"""What the guest of `trial_argv` says."""

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_MACHINE = "microvm,pic=on,pit=on,rtc=on,isa-serial=on,graphics=off"
_RDTSC = bytes.fromhex("0f3148c1e2204809d0c3")  # rdtsc; shl rdx,32; or rax,rdx; ret
_CALIBRATION_SECONDS = 0.2
_TRANSLATIONS_MB = 128
"""Of memory for translated code; QEMU would take up to 1 GiB. With less a boot takes longer."""


class Accelerator(StrEnum):
    """What runs the guest's instructions: hardware, or QEMU itself."""

    KVM = "kvm"
    TCG = "tcg"


def argv(
    files: GuestFiles,
    *,
    cpus: float,
    memory_mb: int,
    accelerator: Accelerator,
    tap_fd: int | None,
    qmp_fd: int,
    console_fd: int,
    boot_port_fd: int,
    incoming: bool,
    warm: bool = False,
) -> list[str]:
    """The arguments. `cpus` are cores (the guest has so many whole ones), memory in MiB.

    With `incoming` it waits for a migration (`migrate-incoming` by QMP) instead of booting. The
    guest that is saved and the one that is restored need the same `cpus`, `memory_mb`,
    `accelerator`, kernel and initramfs. `warm` is for the first boot of one that is to be saved.
    """
    command = [
        "-name", "guest=bastide,process=qemu,debug-threads=on",
        "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-msg", "timestamp=on",
        "-sandbox", _SANDBOX,
        "-machine", f"{_MACHINE},memory-backend=ram",
        "-object", f"memory-backend-ram,id=ram,size={memory_mb}M",
        "-m", f"{memory_mb}M", "-smp", str(math.ceil(cpus)),
        *_accelerator(accelerator),
        "-kernel", str(files.kernel), "-initrd", str(files.initrd),
        "-append", command_line(accelerator, warm=warm),
    ]  # fmt: skip
    for name, path, options in (
        ("image", files.image, "read-only=on"),
        ("bundle", files.bundle, "read-only=on"),
        ("disk", files.disk, "discard=unmap"),
    ):
        command += [
            "-blockdev", f"driver=file,node-name={name},filename={_escaped(str(path))},{options}",
            "-device", f"virtio-blk-device,drive={name},serial={name},id=vd-{name}",
        ]  # fmt: skip
    if tap_fd is not None:
        command += [
            "-netdev", f"tap,id=net,fd={tap_fd}",
            "-device", f"virtio-net-device,netdev=net,mac={MAC},id=nic",
        ]  # fmt: skip
    command += [
        "-object", "rng-random,id=rng,filename=/dev/urandom",
        "-device", "virtio-rng-device,rng=rng",
        "-device", "virtio-balloon-device,id=balloon0,free-page-reporting=on,deflate-on-oom=on",
        "-chardev", f"socket,id=console,fd={console_fd},server=on,wait=on",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=boot,fd={boot_port_fd},server=on,wait=on",
        "-device", "virtio-serial-device,id=serial",
        "-device", f"virtserialport,bus=serial.0,chardev=boot,name={BOOT_PORT}",
        "-chardev", f"socket,id=qmp,fd={qmp_fd},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
    ]  # fmt: skip
    if incoming:
        command += ["-incoming", "defer"]
    return command


def trial_argv(kernel: Path, initrd: Path) -> list[str]:
    """Arguments for a guest on KVM that says `TRIAL` on its console, which is the output, and ends.

    It has no device but that console.
    """
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-sandbox", _SANDBOX, "-machine", _MACHINE, "-m", "128M", *_accelerator(Accelerator.KVM),
        "-kernel", str(kernel), "-initrd", str(initrd), "-serial", "stdio",
        "-append", f"{command_line(Accelerator.KVM)} trial=1",
    ]  # fmt: skip


def command_line(accelerator: Accelerator, *, warm: bool = False) -> str:
    """The kernel's. It holds nothing of the workspace: everybody inside can read it.

    `warm`: the guest starts its agent before it is told who it is. An emulated machine of this
    kind has nothing to measure its clock with: it is told.
    """
    words = ["console=ttyS0", "loglevel=5", "panic=-1", "rcupdate.rcu_expedited=1"]
    words.append("cryptomgr.notests")  # a tenth of an emulated boot
    if accelerator is Accelerator.TCG:
        khz = tsc_khz()
        words += ["mitigations=off", "no_timer_check", "tsc=reliable"]
        words += [f"tsc_early_khz={khz}", f"lpj={khz * 4}"]
    if warm:
        words.append("warm=1")  # the kernel gives it to /init as a variable
    return " ".join(words)


@lru_cache(maxsize=1)
def tsc_khz() -> int:
    """How fast this host's time stamp counter runs, measured once: emulation shows it as it is.

    Blocks for a fifth of a second the first time.
    """
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as m:
        m.write(_RDTSC)
        anchor = ctypes.c_char.from_buffer(m)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
        first_ns, first = _both(read)
        time.sleep(_CALIBRATION_SECONDS)
        last_ns, last = _both(read)
        del read, anchor
    return round((last - first) * 1_000_000 / (last_ns - first_ns))


def _both(read: Callable[[], int]) -> tuple[int, int]:
    """The host's clock and its counter at one moment: the tightest of several readings."""
    readings = []
    for _ in range(50):
        before, ticks, after = time.monotonic_ns(), read(), time.monotonic_ns()
        readings.append((after - before, (before + after) // 2, ticks))
    _, now, ticks = min(readings)
    return now, ticks


def _accelerator(accelerator: Accelerator) -> list[str]:
    if accelerator is Accelerator.KVM:
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", f"tcg,thread=multi,tb-size={_TRANSLATIONS_MB}", "-cpu", "max"]


def _escaped(path: str) -> str:
    """A path as a value of an option: QEMU ends values at a comma unless it is doubled."""
    return path.replace(",", ",,")
