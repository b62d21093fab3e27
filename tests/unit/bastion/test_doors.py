"""What the control plane writes for the bastion, and what the bastion makes of it."""

from __future__ import annotations

import json
import stat
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from bastide.bastion.doors import Door, Doors, Porter

SUBNET = IPv4Network("10.201.0.0/16")
KEY = "00" * 32
ONE = Door(
    workspace="ws_0123456789ab",
    ssh_id="abc234",
    address=IPv4Address("10.201.0.2"),
    keys=("SHA256:one", "SHA256:both"),
    password="proof",
)
TWO = Door(workspace="ws_ba9876543210", ssh_id="xyz789", keys=("SHA256:both",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ssh" / "workspaces.json"


async def test_what_is_published_is_read(path: Path) -> None:
    """A credential opens the doors it belongs to, from the next look on, until it is taken back."""
    porter, doors = Porter(path, KEY), Doors(path, SUBNET)
    assert (doors.key, doors.opened_by_key("SHA256:both")) == ("", frozenset())
    await porter.publish(ONE)
    await porter.publish(TWO)
    assert doors.key == KEY
    assert doors.find("abc234") == ONE
    assert doors.opened_by_key("SHA256:one") == {"abc234"}
    assert doors.opened_by_key("SHA256:both") == {"abc234", "xyz789"}
    assert doors.opened_by_password("proof") == {"abc234"}
    await porter.withdraw(ONE.workspace)
    assert doors.opened_by_key("SHA256:both") == {"xyz789"}
    assert doors.opened_by_password("proof") == frozenset()
    await porter.sync([])
    assert doors.find("xyz789") is None


async def test_the_file_is_for_the_bastion_alone(path: Path) -> None:
    """Others read nothing; nothing is written when nothing changes; a lost file comes back."""
    porter = Porter(path, KEY)
    await porter.publish(ONE)
    before = path.stat()  # noqa: ASYNC240 - a small file of the test's own
    assert stat.S_IMODE(before.st_mode) == 0o640
    await porter.publish(ONE)
    await porter.sync([ONE])
    assert path.stat().st_ino == before.st_ino  # noqa: ASYNC240
    path.unlink()  # noqa: ASYNC240
    await porter.sync([ONE])
    assert Doors(path, SUBNET).find("abc234") == ONE
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_a_new_start_takes_up_what_was_written(path: Path) -> None:
    """A new control plane closes nobody's door before it has read its database."""
    await Porter(path, KEY).sync([ONE, TWO])
    again = Porter(path, KEY)
    await again.publish(ONE)
    assert Doors(path, SUBNET).find("xyz789") == TWO
    await again.withdraw(TWO.workspace)
    assert Doors(path, SUBNET).find("xyz789") is None


async def test_a_failed_write_is_made_good(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written for once is written with the next call, whatever that is."""
    porter = Porter(path, KEY)

    def full(content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(porter, "_replace", full)
        with pytest.raises(OSError, match="No space"):
            await porter.publish(ONE)
    await porter.publish(ONE)
    assert Doors(path, SUBNET).find("abc234") == ONE


@pytest.mark.parametrize("content", ["", "{", "[]", '{"doors": [{"ssh_id": "x"}]}', "\x00" * 100])
def test_what_cannot_be_read_opens_nothing(path: Path, content: str) -> None:
    """A damaged file closes every door."""
    path.parent.mkdir()
    path.write_text(content)
    doors = Doors(path, SUBNET)
    assert doors.opened_by_key("SHA256:one") == frozenset()
    assert doors.key == ""


def test_no_way_out_of_the_subnet(path: Path) -> None:
    """An address that is no workspace's is not forwarded to."""
    path.parent.mkdir()
    door = ONE.model_copy(update={"address": IPv4Address("169.254.169.254")})
    path.write_text(json.dumps({"key": KEY, "doors": [door.model_dump(mode="json")]}))
    assert Doors(path, SUBNET).find("abc234") is None
