"""The guest kernel's files, as far as no archive is needed for them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from bastide.prepare import cpio, kernel
from bastide.prepare.archive import PrepareError
from bastide.prepare.kernel import _ordered, payload


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    """Another program finds the same names, contents and modes in it; it is always the same."""
    if shutil.which("busybox") is None:
        pytest.skip("needs busybox")
    entries = [
        cpio.directory("bin"),
        cpio.file("bin/tool", b"odd number of bytes", 0o755),
        cpio.file("empty", b"", 0o600),
    ]
    whole = cpio.archive(entries)
    assert whole == cpio.archive(entries)
    subprocess.run(
        ["busybox", "cpio", "-idm"], cwd=tmp_path, input=whole, check=True, capture_output=True
    )
    assert (tmp_path / "bin/tool").read_bytes() == b"odd number of bytes"
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o600


def test_a_device_has_its_numbers() -> None:
    """A console in the archive is the character device 5:1."""
    header = cpio.archive([cpio.device("dev/console", 5, 1, 0o600)])[:110]
    assert header[14:22] == b"%08x" % 0o020600
    assert (header[78:86], header[86:94]) == (b"00000005", b"00000001")


def test_a_payload_is_found_by_the_header() -> None:
    """The kernel is where the boot protocol says, without the size that follows it."""
    image = bytearray(8192)
    image[0x202:0x206] = b"HdrS"
    image[0x1F1] = 2
    struct.pack_into("<II", image, 0x248, 100, 14)
    image[3 * 512 + 100 : 3 * 512 + 114] = b"the kernelsize"
    assert payload(bytes(image)) == b"the kernel"


@pytest.mark.parametrize("image", [b"", b"MZ" * 5000])
def test_what_is_no_kernel_is_refused(image: bytes) -> None:
    """A file without the header is not taken for one."""
    with pytest.raises(PrepareError, match="no bzImage"):
        payload(image)


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    """Each once, needed ones first; a missing one is named."""
    found = {}
    needs = {name.replace("-", "_"): "" for name in kernel.MODULES} | {
        "virtio_ring": "virtio",
        "virtio": "",
    }
    needs |= {"virtio_blk": "virtio_ring,virtio", "virtio_net": "virtio_ring"}
    for name, needed in needs.items():
        found[name] = tmp_path / f"{name}.ko"
        found[name].write_bytes(b"\x7fELF\0depends=" + needed.encode() + b"\0vermagic=6\0")
    order = list(_ordered(found))
    assert sorted(order) == sorted(needs)
    assert order.index("virtio") < order.index("virtio_ring") < order.index("virtio_blk")
    del found["virtio"]
    with pytest.raises(PrepareError, match="no module virtio"):
        list(_ordered(found))
