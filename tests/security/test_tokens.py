"""Which tokens open a workspace: forged, foreign and outdated ones tried on a whole cloud.

Threats 13 and 14; the finer points are in tests/host/edge/test_tokens.py.
"""

from __future__ import annotations

import http.client
import json

import jwt
import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.inside import Inside

from bastide.client import Bastide
from bastide.domain.machine import CONTROL_PORT, RUNTIME_PORT

pytestmark = pytest.mark.cloud


def ask(cloud: Cloud, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and code of a GET through the gateway, headers exactly as given."""
    connection = http.client.HTTPConnection(cloud.settings.listen.gateway, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200:
            return 200, ""
        return answer.status, str(json.loads(body)["code"])
    finally:
        connection.close()


def token_of(client: Bastide, inside: Inside) -> str:
    """The gateway token the client uses for a workspace."""
    inside.sh("true")
    found = client.workspaces._tokens.get(inside.id)
    assert found is not None
    return found


def test_only_the_right_token_passes(cloud: Cloud, client: Bastide, inside: Inside) -> None:
    """No algorithm, another key, another audience, a raw token: all 401."""
    good = token_of(client, inside)
    claims = jwt.decode(good, options={"verify_signature": False})
    assert ask(cloud, "/health", {"Authorization": f"Bearer {good}"}) == (200, "")
    header, body, signature = good.split(".")
    key = "k" * 64
    wrong = {
        "none": jwt.encode(claims, "", algorithm="none"),
        "unsigned": f"{header}.{body}.",
        "other key": jwt.encode(claims, key),
        "key file": jwt.encode(claims, key, headers={"kid": "../../../../dev/null"}),
        "stronger": jwt.encode(claims, key, algorithm="HS512"),
        "cut": f"{header}.{body}.{signature[:-2]}",
        "raw": "0" * 64,
        "empty": "",
    }
    for name, token in wrong.items():
        status, code = ask(cloud, "/health", {"Authorization": f"Bearer {token}"})
        assert (status, code) == (401, "unauthorized"), name


def test_neither_token_opens_the_others_door(cloud: Cloud, client: Bastide, inside: Inside) -> None:
    """A raw token at the gateway, a gateway token at the workspace: 401."""
    raw = client.workspaces._api._http.get(
        f"/workspace/{inside.id}/runtime-api-access/token/raw"
    ).json()
    assert ask(cloud, "/health", {"Authorization": f"Bearer {raw['token']}"})[0] == 401
    mine = token_of(client, inside)
    script = (
        "import http.client,sys\n"
        f"c=http.client.HTTPConnection('127.0.0.1',{RUNTIME_PORT})\n"
        f"c.request('GET','/exec',headers={{'Authorization':'Bearer {mine}'}})\n"
        "print(c.getresponse().status)"
    )
    assert inside.runtime.exec.run(["python3", "-c", script]).stdout.strip() == "401"
    for token in (mine, raw["token"]):
        at_control = script.replace(str(RUNTIME_PORT), str(CONTROL_PORT)).replace(mine, token)
        assert inside.runtime.exec.run(["python3", "-c", at_control]).stdout.strip() == "401"


def test_a_rotation_ends_every_earlier_token(
    cloud: Cloud, client: Bastide, neighbour: Inside
) -> None:
    """After a rotation the old token is dead at once."""
    old = token_of(client, neighbour)
    rotated = client.workspaces._api._http.post(
        f"/workspace/{neighbour.id}/runtime-api-access/token"
    )
    assert rotated.status_code == 200, rotated.text
    assert ask(cloud, "/health", {"Authorization": f"Bearer {old}"}) == (401, "unauthorized")
    assert neighbour.sh("echo again").stdout == "again\n"


def test_a_websocket_needs_the_token_whatever_its_origin(cloud: Cloud) -> None:
    """A cookie and an origin open nothing."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": "https://evil.example",
        "Cookie": "token=anything; session=anything",
    }
    assert ask(cloud, "/ws", upgrade) == (401, "unauthorized")
