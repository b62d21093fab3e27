"""What a guest is told, what it may say, and how its emulator is started."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bastide.node.errors import BootFailed
from bastide.node.machines.microvm.guest import (
    MOST_OUTPUT,
    BootDocument,
    Conversation,
    GuestExit,
    GuestFiles,
    GuestNetwork,
    going_on,
)
from bastide.node.machines.microvm.qemu import Accelerator, argv, command_line, tsc_khz

NETWORK = GuestNetwork(
    IPv4Address("10.9.0.5"), IPv4Address("10.9.0.1"), "02:00:0a:09:00:05", ("10.9.0.1",)
)
FILES = GuestFiles(*(Path("/f", name) for name in ("kernel", "initrd", "image", "disk", "bundle")))


def heard(*pieces: bytes) -> Conversation:
    said = Conversation()
    for piece in pieces:
        said.feed(piece)
    return said


def test_a_document_ends_with_the_agents_own() -> None:
    """Lines of key and value, the last of which says how many bytes follow."""
    document = BootDocument(
        "name", ("/bin/sh", "-c", "a b"), b'{"token": "t"}', env={"A": "1 2"}, network=NETWORK
    )
    head, _, agent = document.to_bytes().partition(b"agent 14\n")
    assert agent == b'{"token": "t"}'
    lines = head.decode().splitlines()
    assert "hostname name" in lines
    assert "address 10.9.0.5" in lines
    assert "env A=1 2" in lines
    assert [line for line in lines if line.startswith("arg ")] == [
        "arg /bin/sh",
        "arg -c",
        "arg a b",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        BootDocument("Not a name", ("x",), b""),
        BootDocument("name", ("a\narg b",), b""),
        BootDocument("name", ("x",), b"", env={"A": "1\nagent 0"}),
        BootDocument("name", ("x",), b"", env={"A B": "1"}),
        BootDocument("name", ("back\\slash",), b""),
    ],
)
def test_nothing_can_be_told_as_something_else(wrong: BootDocument) -> None:
    """A value that would be read as another line is refused."""
    with pytest.raises(ValueError, match=r"cannot be told|not a"):
        wrong.to_bytes()


def test_a_network_is_checked() -> None:
    """Neither hardware address nor resolver can be anything else."""
    with pytest.raises(ValueError, match="hardware"):
        GuestNetwork(NETWORK.address, NETWORK.gateway, "02:00")
    with pytest.raises(ValueError, match="resolver"):
        GuestNetwork(NETWORK.address, NETWORK.gateway, NETWORK.mac, ("resolver",))


def test_each_guest_draws_its_own() -> None:
    """No two documents have one seed, and none is shown."""
    first, second = (BootDocument("name", ("x",), b"secret") for _ in range(2))
    assert first.seed != second.seed
    assert "secret" not in repr(first)
    assert first.seed not in repr(first)
    assert going_on()["seed"] != going_on()["seed"]


def test_a_conversation_in_pieces() -> None:
    """Words are taken line by line, however they come; output is what process 1 printed."""
    said = heard(b"BASTIDE HE", b"LLO\nhel", b"lo\nREADY\nlater\nBASTIDE EXIT 3 2\n")
    assert said.hello
    assert said.ready
    assert said.output == b"hello\nREADY\n"
    assert said.exit == GuestExit(3, 2)


def test_words_in_the_output_are_output() -> None:
    """What only looks like the guest's own words is what process 1 printed."""
    said = heard(b"say BASTIDE HELLO\nBASTIDE EXIT many 0\nREADY or not\n")
    assert not said.hello
    assert not said.ready
    assert said.exit is None
    assert len(said.output.splitlines()) == 3


def test_the_last_word_needs_no_line_end() -> None:
    """A guest that ends in the middle of a line has said that much."""
    said = heard(b"cannot go on")
    assert said.output == b""
    said.end()
    assert said.output == b"cannot go on"


def _flood(said: Conversation, piece: bytes) -> None:
    for _ in range(10_000):
        said.feed(piece)


@pytest.mark.parametrize("piece", [b"a" * 1000, b"line\n" * 200])
def test_a_flood_is_bounded(piece: bytes) -> None:
    """A guest that prints without end fails at the bound and keeps no more in memory."""
    said = Conversation()
    with pytest.raises(BootFailed, match="64 KiB"):
        _flood(said, piece)
    assert len(said.output) == MOST_OUTPUT


def test_a_flood_of_the_ready_is_dropped() -> None:
    """Once it is ready nothing it prints is kept."""
    said = heard(b"READY\n", *[b"x" * 5000 + b"\n"] * 1000)
    assert said.output == b"READY\n"


def test_a_command_line_has_no_secret_and_no_way_out() -> None:
    """No monitor but ours, no default device, system calls denied; files read-only but the disk."""
    line = argv(
        FILES, cpus=1.5, memory_mb=256, accelerator=Accelerator.TCG,
        tap_fd=3, qmp_fd=4, console_fd=5, boot_port_fd=6, incoming=False,
    )  # fmt: skip
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(line)
    assert line[line.index("-sandbox") + 1].count("deny") == 4
    assert line[line.index("-smp") + 1] == "2"
    drives = [word for word in line if word.startswith("driver=file")]
    assert [("read-only=on" in word, word.split(",")[1]) for word in drives] == [
        (True, "node-name=image"),
        (True, "node-name=bundle"),
        (False, "node-name=disk"),
    ]
    assert line.count("-mon") == 1
    assert "-incoming" not in line


def test_odd_file_names_stay_names() -> None:
    """A comma in a path is no option."""
    odd = GuestFiles(FILES.kernel, FILES.initrd, FILES.image, Path("/a,b=c"), FILES.bundle)
    line = argv(
        odd, cpus=1, memory_mb=128, accelerator=Accelerator.KVM,
        tap_fd=None, qmp_fd=4, console_fd=5, boot_port_fd=6, incoming=True,
    )  # fmt: skip
    assert any("filename=/a,,b=c," in word for word in line)
    assert line[-2:] == ["-incoming", "defer"]


def test_only_an_emulated_clock_is_told() -> None:
    """Hardware knows its clock; emulation is told the host's, as it was measured."""
    assert "tsc" not in command_line(Accelerator.KVM)
    told = command_line(Accelerator.TCG, warm=True)
    assert f"tsc_early_khz={tsc_khz()}" in told
    assert told.endswith("warm=1")
    assert 100_000 < tsc_khz() < 10_000_000
