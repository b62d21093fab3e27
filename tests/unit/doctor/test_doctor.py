"""Checks of the host that can be tried anywhere."""

from __future__ import annotations

import json
import platform
import socket
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from bastide.doctor import examine, network, programs, storage
from bastide.node import reflink
from bastide.node.machines.criu import Version
from bastide.node.pool import MKFS
from bastide.settings import Listen, Network, Settings, Storage


def test_every_finding_says_something(tmp_path: Path) -> None:
    """Each check ends in a finding; whatever fails says what to do."""
    found = examine(Settings(state_dir=tmp_path, run_dir=tmp_path))
    names = [finding.name for finding in found]
    assert len(names) == len(set(names))
    assert all(finding.says for finding in found)
    assert all(finding.todo for finding in found if finding.level == "fail")


@pytest.mark.parametrize("name", ["api", "gateway", "ssh"])
def test_a_taken_port_fails_and_a_free_one_does_not(tmp_path: Path, name: str) -> None:
    """A port held by somebody else is told with the setting that moves it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings(run_dir=tmp_path, listen=Listen(**{name: address}))
        (finding,) = (each for each in network.ports(settings) if each.name == f"listen.{name}")
        assert finding.level == "fail"
        assert f"listen.{name}" in finding.todo
    (finding,) = (each for each in network.ports(settings) if each.name == f"listen.{name}")
    assert finding.level == "ok"


def test_a_subnet_in_use_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A route of the host inside the workspaces' network is found; our own are not."""
    routes = [("eth0", IPv4Network("10.201.4.0/24"))]
    monkeypatch.setattr(network, "_routes", lambda: iter(routes))
    settings = Settings(network=Network(subnet=IPv4Network("10.201.0.0/16")))
    assert network.subnet(settings).level == "fail"
    routes[:] = [("bt1", IPv4Network("10.201.0.5/32")), ("eth0", IPv4Network("0.0.0.0/0"))]
    assert network.subnet(settings).level == "ok"


def test_missing_programs_name_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lacks is told by the Debian package that brings it."""
    monkeypatch.setattr(programs, "PROGRAMS", {"no-such-program": "the-package"})
    finding = programs.debian()
    assert finding.level == "fail"
    assert "the-package" in finding.todo


def test_an_unprepared_host_fails(tmp_path: Path) -> None:
    """Runtime, bundle and image are missed, each with the command that makes them."""
    settings = Settings(state_dir=tmp_path)
    for finding in (programs.runtime(settings), programs.prepared(settings)):
        assert (finding.level, finding.todo) == ("fail", "bastide prepare")


def test_missing_users_are_named() -> None:
    """A user that does not exist is told with the command that makes it."""
    finding = programs.users(Settings(user="no-such-user"))
    assert finding.level == "fail"
    assert "useradd" in finding.todo
    assert "no-such-user" in finding.todo


def test_space_is_looked_up_above_an_absent_directory(tmp_path: Path) -> None:
    """The nearest existing directory tells the file system."""
    finding = storage.space(Settings(state_dir=tmp_path / "a" / "b"))
    assert "GiB free" in finding.says


def test_reflinks_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They work, or the pool has them, or will have; and what to do where there are none."""
    monkeypatch.setattr(storage, "PATH", str(tmp_path))
    settings = Settings(state_dir=tmp_path)
    monkeypatch.setattr(reflink, "supported", lambda _: True)
    assert storage.reflinks(settings).says == "work"
    monkeypatch.setattr(reflink, "supported", lambda _: False)
    finding = storage.reflinks(settings)
    assert (finding.level, finding.todo.split(",")[0]) == ("warn", "apt-get install xfsprogs")
    (tmp_path / MKFS).touch(0o755)
    assert "a pool is made" in storage.reflinks(settings).says
    without = settings.model_copy(update={"storage": Storage(pool="off")})
    assert storage.reflinks(without).level == "warn"
    (tmp_path / "pool.xfs").write_bytes(bytes(4096))
    assert f"in the pool {tmp_path / 'pool.xfs'}" in storage.reflinks(settings).says


def test_snapshots_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No criu, an old one, one that failed on this kernel and why, one that is proven."""
    settings = Settings(state_dir=tmp_path)
    assert storage.snapshots(settings).todo == "bastide prepare"
    monkeypatch.setattr(storage, "read_version", lambda _: Version("1.0", (1, 0)))
    assert "too old" in storage.snapshots(settings).says
    monkeypatch.setattr(storage, "read_version", lambda _: Version("99.0", (99, 0)))
    assert "tries it when it starts" in storage.snapshots(settings).says
    (tmp_path / "runtime").mkdir()
    failure = tmp_path / "runtime/rehearsal.failed"
    failure.write_text(f"{platform.release()}\na trial failed: because")
    finding = storage.snapshots(settings)
    assert (finding.level, finding.says) == ("warn", "criu 99.0: a trial failed: because")
    failure.write_text("another kernel\na trial failed")
    known = tmp_path / "runtime/rehearsals.json"
    known.write_text(json.dumps([[platform.release()]]))
    assert storage.snapshots(settings).says == "criu 99.0, tried on this kernel"
