"""Images without a registry: who may be asked, who is where, and what a configuration says."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from bastide.domain.machine import ImageRequest, RegistryAuth
from bastide.node.errors import ImageDenied, ImageRefused, Invalid
from bastide.node.images import Images as Shelf
from bastide.node.images.documents import Configuration, Index, Manifest, architecture, read
from bastide.node.images.logins import Logins
from bastide.node.images.passage import Passage, _public
from bastide.node.images.registry import Registry
from bastide.node.images.workshop import Workshop
from bastide.settings import Images, Settings


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:169.254.169.254", "198.18.0.1", "ff02::1",
    ],
)  # fmt: skip
def test_inner_addresses_are_not_public(address: str) -> None:
    """Whatever the spelling, also inside an IPv6 address."""
    assert not _public(address)


def test_public_addresses_are() -> None:
    """The rest of the world."""
    assert all(_public(address) for address in ("1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"))


def test_registries_are_named() -> None:
    """Any, or only those that are named; a named one may be at any address."""
    anywhere, some = Images(), Images(registries=("a.example",), insecure_registries=("b:5000",))
    assert anywhere.admits("c.example")
    assert not anywhere.names("c.example")
    assert not anywhere.names("*")
    assert [some.admits(name) for name in ("a.example", "b:5000", "c.example")] == [
        True, True, False,
    ]  # fmt: skip
    assert Passage(some).scheme("b:5000") == "http"
    assert Passage(some).scheme("a.example") == "https"


async def test_a_redirect_without_tls_is_refused() -> None:
    """A registry with TLS cannot lead to one without, nor to a local file."""
    registry = Registry("a.example", Passage(Images()), None)
    for target in ("http://a.example/x", "http://127.0.0.1/x", "file:///etc/passwd", "ftp://x/"):
        with pytest.raises(ImageDenied, match="TLS"):
            registry._check_scheme(httpx.URL(target))
    registry._check_scheme(httpx.URL("https://elsewhere.example/x"))


def test_the_manifest_for_this_host_is_chosen() -> None:
    """By platform; one for others only says for which."""
    blob = {"digest": "sha256:" + "0" * 64, "size": 1}
    other = {**blob, "platform": {"os": "linux", "architecture": "s390x"}}
    mine = {
        "digest": "sha256:" + "1" * 64, "size": 2,
        "platform": {"os": "linux", "architecture": architecture()},
    }  # fmt: skip
    index = read(Index, json.dumps({"manifests": [other, mine]}).encode(), "index")
    assert index.fitting().digest.endswith("1")
    with pytest.raises(ImageRefused, match="s390x"):
        read(Index, json.dumps({"manifests": [other]}).encode(), "index").fitting()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"config": 1}', b'{"config": {"digest": "x", "size": 1}}']
)
def test_a_broken_manifest_is_refused(content: bytes) -> None:
    """With the place of the fault."""
    with pytest.raises(ImageRefused, match="its manifest is broken"):
        read(Manifest, content, "manifest")


def test_a_configuration_is_cut_to_what_counts() -> None:
    """Variables without a name and relative directories are left out; the rest is kept."""
    inner = {
        "Entrypoint": ["/run"], "Cmd": ["now"], "Env": ["A=b=c", "=x", "none", "E="],
        "WorkingDir": "relative", "User": "", "ExposedPorts": {"80/tcp": {}, "x": {}, "53/udp": {}},
    }  # fmt: skip
    document = {"architecture": architecture(), "config": inner, "rootfs": {"diff_ids": []}}
    found = read(Configuration, json.dumps(document).encode(), "configuration").checked()
    assert found.command == ("/run", "now") == found.service
    assert found.env == {"A": "b=c", "E": ""}
    assert (found.workdir, found.user) == (None, None)
    assert found.exposed_ports == ("53/udp", "80/tcp")


@pytest.mark.parametrize(
    "inner",
    [{"Cmd": ["x" * 70_000]}, {"Env": ["A=\ud800"]}, {"Cmd": ["a\x00"]}, {"Cmd": ["x"] * 2000}],
)
def test_a_configuration_no_process_can_have_is_refused(inner: object) -> None:
    """Too long, or text that is none."""
    document = {"config": inner, "rootfs": {"diff_ids": []}}
    with pytest.raises(ImageRefused):
        read(Configuration, json.dumps(document).encode(), "configuration").checked()


def test_logins_are_kept_closed(tmp_path: Path) -> None:
    """One file for root alone; the password is in no text that is shown."""
    logins = Logins(tmp_path / "registries.json")
    assert logins.registries() == []
    auth = RegistryAuth(username="me", password="very secret")
    logins.keep("a.example", auth)
    assert "secret" not in repr(auth)
    assert (tmp_path / "registries.json").stat().st_mode & 0o777 == 0o600
    assert Logins(tmp_path / "registries.json").get("a.example") == auth
    logins.forget("a.example")
    assert logins.get("a.example") is None


async def test_a_slip_in_an_id_is_told_and_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare word is an id of the catalogue: no registry is asked, and the ids are named."""

    def asked(*_: object) -> None:
        pytest.fail("a registry was asked")

    monkeypatch.setattr("bastide.node.images.workshop.Registry", asked)
    workshop = Workshop(Settings(state_dir=tmp_path), Shelf(tmp_path))
    with pytest.raises(Invalid, match=r"no image 'bogus' here.*debian-12.*bogus:latest"):
        async for _ in workshop.have(ImageRequest(reference="bogus")):
            pass
