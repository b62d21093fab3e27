"""The configuration HAProxy gets."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from bastide.edge.edge import live_map, map_directory
from bastide.edge.haproxy import EdgeError, prepare, render
from bastide.gateway.keys import gateway_key
from bastide.settings import Listen, Settings


def settings(**changes: Any) -> Settings:
    """Settings with users that every Debian has."""
    return Settings(**({"user": "daemon", "edge_user": "nobody"} | changes))


def test_everything_is_filled_in() -> None:
    """No placeholder is left, and the values stand where they belong."""
    text = render(settings(), as_root=True)
    assert "@{" not in text
    assert "user nobody\n    group nogroup" in text
    assert "stats socket /run/bastide/edge/edge.sock mode 600 level admin user daemon" in text
    assert "bind 127.0.0.1:7080 proto h1" in text
    assert "bind 127.0.0.1:7081 proto h1" in text
    assert "server api unix@/run/bastide/api/api.sock" in text
    assert "accept-invalid" not in text


def test_without_root() -> None:
    """Started by another user, HAProxy changes no identity."""
    text = render(settings(), as_root=False)
    assert "nobody" not in text
    assert "daemon" not in text


def test_every_answer_is_in_the_envelope() -> None:
    """Each body in the configuration is JSON with code, message and request id."""
    bodies = re.findall(r"lf-string '([^']*)'", render(settings(), as_root=False))
    assert len(bodies) > 20
    for body in bodies:
        document = json.loads(body)
        assert document["success"] is False
        assert document["error"] == document["code"]
        assert document["message"]
        assert document["request_id"] == "%[var(txn.request_id)]"


@pytest.mark.parametrize(
    "listen",
    [
        "localhost:7080",
        "7080",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:80 accept-proxy",
        "127.0.0.1:80\n    bind :1",
        "*:80",
        "",
    ],
)
def test_listen_addresses(listen: str) -> None:
    """An address that is no literal `address:port` is named in the error."""
    with pytest.raises(EdgeError, match=r"listen\.gateway"):
        render(settings(listen=Listen(gateway=listen)), as_root=False)


def test_ipv6() -> None:
    """IPv6 addresses are written in brackets."""
    assert "bind [::1]:80 proto" in render(settings(listen=Listen(api="[::1]:80")), as_root=False)


@pytest.mark.parametrize("path", ["relative", "/with space", "/new\nline", "/a'b", "/x" * 60])
def test_paths(path: str) -> None:
    """A path that could not stand in the configuration is refused."""
    with pytest.raises(EdgeError):
        render(settings(run_dir=Path(path)), as_root=False)


def test_unknown_users() -> None:
    """A missing user is named."""
    with pytest.raises(EdgeError, match="no-such-user"):
        render(settings(edge_user="no-such-user"), as_root=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="writes as root does")
def test_prepare(tmp_path: Path) -> None:
    """Files are private, the key is in the environment alone, a hostile map is an error."""
    here = settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    launch = prepare(here)
    assert launch.argv == ("/usr/sbin/haproxy", "-db", "-f", str(tmp_path / "run/edge/haproxy.cfg"))
    key = gateway_key(here)
    assert launch.environment == {"BASTIDE_GATEWAY_KEY": key}
    assert key not in repr(launch)
    assert key not in (tmp_path / "run/edge/haproxy.cfg").read_text()
    for path in (live_map(here), tmp_path / "run/edge/haproxy.cfg"):
        assert path.stat().st_mode & 0o777 == 0o600
    map_directory(here).mkdir(parents=True)
    (map_directory(here) / "workspaces.map").symlink_to("/etc/shadow")
    with pytest.raises(EdgeError):
        prepare(here)
