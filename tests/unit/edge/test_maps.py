"""Entries of the gateway map: what gets in, and what is read back."""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.edge.maps import (
    GatewayEntry,
    GatewayEntryError,
    parse_line,
    read_map,
    write_map,
)

SUBNET = IPv4Network("10.201.0.0/16")
TOKEN = "ab" * 32
RIGHT: dict[str, Any] = {
    "workspace_id": "ws_a1b2c3d4",
    "address": "10.201.0.2",
    "generation": 4,
    "state": "open",
    "raw_token": TOKEN,
}


def test_line() -> None:
    """The line HAProxy reads is exactly this."""
    entry = GatewayEntry(**RIGHT)
    assert entry.line() == f"ws_a1b2c3d4 open:4:10.201.0.2:{TOKEN}\n"
    assert parse_line(entry.line()) == entry


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workspace_id", "ws_a1b2c3d4\n"),
        ("workspace_id", "ws_a1b2c3d4 x"),
        ("workspace_id", "ws_a1b2c3d4;show env"),
        ("workspace_id", "../x"),
        ("workspace_id", ""),
        ("address", "10.201.0.2 "),
        ("address", "10.201.0.2:22"),
        ("address", "010.201.0.2"),
        ("address", "::1"),
        ("address", "localhost"),
        ("address", None),
        ("generation", -1),
        ("generation", True),
        ("generation", 2**31),
        ("generation", "4"),
        ("state", "OPEN"),
        ("state", "open:9"),
        ("state", ""),
        ("raw_token", "zz"),
        ("raw_token", TOKEN + "\n"),
        ("raw_token", TOKEN.upper()),
        ("raw_token", None),
    ],
)
def test_hostile_values(name: str, value: object) -> None:
    """No value that could break the map or its commands makes an entry."""
    with pytest.raises(GatewayEntryError) as refused:
        GatewayEntry(**(RIGHT | {name: value}))
    assert TOKEN not in str(refused.value)
    assert TOKEN not in repr(GatewayEntry(**RIGHT))


def test_closed_entries_need_nothing() -> None:
    """An entry that lets nothing pass may have no address and no token."""
    entry = GatewayEntry("ws_a1b2c3d4", None, 1, "disabled", None)
    assert entry.line() == "ws_a1b2c3d4 disabled:1:-:-\n"
    assert parse_line(entry.line()) == entry


@pytest.mark.parametrize("address", ["10.201.0.0", "10.201.0.1", "10.201.255.255", "10.202.0.2"])
def test_addresses_that_are_no_workspaces(address: str) -> None:
    """The gateway's own address, the ends of the subnet and what is outside are told apart."""
    assert GatewayEntry(**RIGHT).inside(SUBNET)
    assert not GatewayEntry(**(RIGHT | {"address": address})).inside(SUBNET)


def test_file(tmp_path: Path) -> None:
    """What was written is read; the file is private and nothing is left beside it."""
    entries = {
        name: GatewayEntry(**(RIGHT | {"workspace_id": name}))
        for name in (f"ws_{number:08x}" for number in range(100))
    }
    write_map(tmp_path, [entry.line() for entry in entries.values()])
    assert read_map(tmp_path, SUBNET) == (entries, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["workspaces.map"]
    assert (tmp_path / "workspaces.map").stat().st_mode & 0o777 == 0o600


def test_no_file(tmp_path: Path) -> None:
    """A missing file is an empty map."""
    assert read_map(tmp_path, SUBNET) == ({}, 0)


def test_broken_lines_are_dropped(tmp_path: Path) -> None:
    """Lines that are wrong, or lead outside the subnet, are counted and left out."""
    good = GatewayEntry(**RIGHT).line()
    bad = [
        "root:x:0:0:root:/root:/bin/bash\n",
        f"ws_a1b2c3d5 open:4:169.254.169.254:{TOKEN}\n",
        f"ws_a1b2c3d6 open:99999999999:10.201.0.2:{TOKEN}\n",
        f"ws_a1b2c3d7 open:1:10.201.0.2:{TOKEN} # x\n",
        "ws_a1b2c3d8 open:4:-:-\n",
        "\xff\x00\n",
    ]
    (tmp_path / "workspaces.map").write_text("".join([bad[0], good, *bad[1:]]), "latin-1")
    entries, wrong = read_map(tmp_path, SUBNET)
    assert list(entries) == ["ws_a1b2c3d4"]
    assert wrong == len(bad)


@pytest.mark.parametrize("what", ["link", "fifo", "directory"])
def test_hostile_file(tmp_path: Path, what: str) -> None:
    """Root reads this file of another user: no link is followed, no pipe waited for."""
    path = tmp_path / "workspaces.map"
    if what == "link":
        path.symlink_to("/etc/passwd")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"workspaces\.map"):
        read_map(tmp_path, SUBNET)


@given(st.text())
def test_any_text(text: str) -> None:
    """Whatever a line holds, it is an entry that writes the same line, or an error."""
    try:
        entry = parse_line(text)
    except GatewayEntryError:
        return
    assert entry.line().rstrip("\n") == text.rstrip("\n")
