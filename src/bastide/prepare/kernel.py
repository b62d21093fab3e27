"""The kernel of guests: Debian's cloud kernel, and a first root of our own around it.

`state_dir/runtime/guest/DIGEST` holds `vmlinux` (not compressed, as QEMU starts it directly),
`initrd` and `kernel.json`; `current` names the one in force. The digest covers the package, the
scripts in `guest/`, busybox and this recipe, so nothing is made twice. Others are kept: a
snapshot only comes back with the kernel it was taken with.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from bastide.domain.machine import AGENT_ARGV, AGENT_ENV
from bastide.node.machines.microvm.kernel import HOME, Kernel, KernelRecord, find_kernel
from bastide.prepare import cpio
from bastide.prepare.archive import PrepareError, run
from bastide.prepare.link import point

META = "linux-image-cloud-amd64"
BUSYBOX = Path("/bin/busybox")
MODULES = (
    "virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "virtio-rng", "virtio_balloon",
    "erofs", "overlay",
)  # fmt: skip
_SCRIPTS = Path(__file__).with_name("guest")
_DIRECTORIES = ("bin", "cgroup", "dev", "modules", "proc", "stage.d", "sys")
_LZ4, _ELF = bytes.fromhex("02214c18"), b"\x7fELF"
_DEPENDS = re.compile(rb"(?:^|\0)depends=([^\0]*)\0")


def ensure_kernel(state_dir: Path, say: Callable[[str], None]) -> Kernel:
    """Have the newest guest kernel this host's apt knows; `say` gets lines of progress.

    One that is there is kept when apt knows none.

    Raises:
        PrepareError: it cannot be fetched, or is made in a way that is not known here.
    """
    home = state_dir.absolute() / "runtime" / HOME
    present = find_kernel(state_dir)
    newest = _newest()
    if newest is None:
        if present is not None:
            say(f"guest kernel: {present.record.release} is there, apt knows no other")
            return present
        raise PrepareError(f"apt knows no package {META}: run apt-get update")
    name, version = newest
    digest = _digest(name, version)
    kernel = find_kernel(state_dir, digest)
    if kernel is None:
        say(f"guest kernel: fetching {name} {version}")
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=home) as scratch:
            ready = _build(Path(scratch), name, version, digest)
            _share(ready, home)
            final = home / digest
            shutil.rmtree(final, ignore_errors=True)
            with suppress(OSError):  # somebody else has just made the same
                ready.rename(final)
        kernel = find_kernel(state_dir, digest)
        if kernel is None:
            raise PrepareError("the guest kernel went away while it was made")
        say(f"guest kernel: {kernel.record.release} is ready")
    else:
        say(f"guest kernel: {kernel.record.release} is there")
    point(home / "current", digest)
    return kernel


def _newest() -> tuple[str, str] | None:
    """Name and version of the package the newest kernel is in."""
    try:
        depends = run(["apt-cache", "depends", META])
        names = re.findall(r"Depends: (linux-image-\S+-cloud-amd64)\b", depends)
        shown = run(["apt-cache", "show", "--no-all-versions", names[0]]) if names else ""
    except PrepareError:
        return None
    version = re.search(r"^Version: (\S+)$", shown, re.MULTILINE)
    return (names[0], version[1]) if version else None


def _digest(name: str, version: str) -> str:
    if not BUSYBOX.is_file():
        raise PrepareError("busybox is missing: apt-get install busybox-static")
    total = hashlib.sha256(f"{name} {version} {_agent()}".encode())
    total.update(Path(__file__).read_bytes())
    total.update(BUSYBOX.read_bytes())
    for script in sorted(_SCRIPTS.iterdir()):
        total.update(f"\0{script.name}\0".encode() + script.read_bytes())
    return total.hexdigest()[:32]


def _agent() -> str:
    """The usual process 1, for guests that begin it before they are told: one word a line."""
    return "".join(
        f"{line}\n" for line in (*(f"{k}={v}" for k, v in AGENT_ENV.items()), *AGENT_ARGV)
    )


def _build(scratch: Path, name: str, version: str, digest: str) -> Path:
    """Fetch the package and make all files of a kernel's directory, in a directory of `scratch`."""
    scratch.chmod(0o755)
    run(["apt-get", "-q", "download", f"{name}={version}"], cwd=scratch)
    packages = list(scratch.glob("*.deb"))
    if len(packages) != 1:
        raise PrepareError(f"apt gave no single file for {name}")
    tree, ready = scratch / "tree", scratch / "ready"
    run(["dpkg-deb", "-x", packages[0], tree])
    images = list(tree.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        raise PrepareError(f"{name} is laid out in a way this version does not know")
    release = images[0].name.removeprefix("vmlinuz-")
    ready.mkdir()
    _unpack(payload(images[0].read_bytes()), ready / "vmlinux")
    (ready / "initrd").write_bytes(_initrd(tree / "lib/modules" / release))
    record = KernelRecord(digest=digest, name=name, package=version, release=release)
    (ready / "kernel.json").write_text(json.dumps(record.model_dump(), indent=1) + "\n")
    for path in ready.iterdir():
        path.chmod(0o444)
    ready.chmod(0o755)
    return ready


def _share(ready: Path, home: Path) -> None:
    """Let kernels of one package be one file on the disk: mostly it is the scripts that change."""
    ours = (ready / "vmlinux").read_bytes()
    for other in home.glob("*/vmlinux"):
        if other.stat().st_size == len(ours) and other.read_bytes() == ours:
            (ready / "vmlinux").unlink()
            (ready / "vmlinux").hardlink_to(other)
            return


def payload(image: bytes) -> bytes:
    """The packed kernel in a bzImage (Documentation/x86/boot.rst, `payload_offset`).

    Raises:
        PrepareError: it is none.
    """
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        raise PrepareError("the kernel is no bzImage")
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = ((image[0x1F1] or 4) + 1) * 512 + offset
    return image[begin : begin + length - 4]  # its unpacked size follows


def _unpack(packed: bytes, target: Path) -> None:
    """Write the kernel itself.

    Raises:
        PrepareError: it is packed in a way that is not known here.
    """
    if not packed.startswith(_LZ4):
        raise PrepareError("the kernel is packed in a way this version does not know")
    source = target.with_suffix(".lz4")
    source.write_bytes(packed)
    run(["lz4", "-d", "-q", source, target])
    source.unlink()
    with target.open("rb") as file:
        if file.read(4) != _ELF:
            raise PrepareError("what is in the kernel's image is no kernel")


def _initrd(modules: Path) -> bytes:
    """The first root: busybox, the scripts, the modules and the order they are loaded in."""
    found = {path.stem.replace("-", "_"): path for path in modules.glob("kernel/**/*.ko")}
    order = list(_ordered(found))
    entries = [cpio.directory(name) for name in _DIRECTORIES]
    entries.append(cpio.device("dev/console", 5, 1, 0o600))
    entries.append(cpio.file("bin/busybox", BUSYBOX.read_bytes(), 0o755))
    entries += [
        cpio.file(script.name, script.read_bytes(), 0o755) for script in sorted(_SCRIPTS.iterdir())
    ]
    entries.append(cpio.file("agent", _agent().encode(), 0o644))
    entries.append(cpio.file("modules/order", "".join(f"{n}\n" for n in order).encode(), 0o644))
    entries += [cpio.file(f"modules/{n}.ko", found[n].read_bytes(), 0o644) for n in order]
    return cpio.archive(entries)


def _ordered(found: dict[str, Path]) -> Iterator[str]:
    """`MODULES` and all they need, each after what it needs.

    Raises:
        PrepareError: one is not in the package.
    """
    done: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        name = name.replace("-", "_")
        if name in done:
            return
        done.add(name)
        if name not in found:
            raise PrepareError(f"Debian's cloud kernel has no module {name}")
        needs = _DEPENDS.search(found[name].read_bytes())
        for needed in needs[1].decode().split(",") if needs and needs[1] else ():
            yield from visit(needed)
        yield name

    for name in MODULES:
        yield from visit(name)
