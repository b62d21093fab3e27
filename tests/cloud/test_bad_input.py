"""Bad input at the real ports: the envelope or a clean refusal, never a 500, nothing half-made.

What any path of the API makes of any body is tried without a network in tests/api/test_no_500.py;
here it is what only the edge and real sockets see: heads, encodings, framing, sizes.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator

import pytest
from tests.cloud.cloud import Cloud

from bastide.client import Bastide

pytestmark = pytest.mark.cloud

SEED = 20261121
ROUNDS = 150
CREATE = "/workspace"
JSON = "Content-Type: application/json"


def send(address: str, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what comes back for raw bytes; status 0 when nothing does."""
    host, _, port = address.rpartition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=20) as tcp:
        try:
            for part in parts:
                tcp.sendall(part)
            while chunk := tcp.recv(65536):
                answer += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if len(lines[0].split()) < 2:
        return 0, {}, b""
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), headers, body


class Port:
    """One listening address of the cloud, asked with credentials."""

    def __init__(self, cloud: Cloud, address: str) -> None:
        self.address = address
        self.key = (
            f"X-Client-ID: {cloud.environment['BASTIDE_CLIENT_ID']}\r\n"
            f"X-Client-Secret: {cloud.environment['BASTIDE_CLIENT_SECRET']}\r\n"
        )

    def ask(
        self, method: str, path: str, *headers: str, body: bytes = b"", length: bool = True
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request as it is written here."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.address}", "Connection: close"]
        lines += [f"Content-Length: {len(body)}"] if length and body else []
        head = "\r\n".join([*lines, *headers]) + "\r\n" + self.key + "\r\n"
        return send(self.address, head.encode("utf-8", "surrogateescape"), body)


@pytest.fixture(params=["api", "gateway"])
def port(request: pytest.FixtureRequest, cloud: Cloud) -> Port:
    """Each of the two."""
    return Port(cloud, str(getattr(cloud.settings.listen, request.param)))


@pytest.fixture
def api(cloud: Cloud) -> Port:
    """The API's."""
    return Port(cloud, cloud.settings.listen.api)


@pytest.fixture(autouse=True)
def _nothing_is_half_made(client: Bastide) -> Iterator[None]:
    """No test here makes a workspace."""
    before = {one.id for one in client.workspaces.list()}
    yield
    assert {one.id for one in client.workspaces.list()} <= before


def assert_refused(answer: tuple[int, dict[str, str], bytes]) -> None:
    """A 4xx with the envelope, or of HAProxy where it is no HTTP (docs/architecture.md)."""
    status, headers, body = answer
    assert 400 <= status < 500, (status, body[:300])
    if status == 400 and headers["content-type"] == "text/html":
        return
    assert headers["content-type"].startswith("application/json")
    told = json.loads(body)
    assert told["success"] is False
    assert told["code"] == told["error"]
    assert told["message"]
    assert "Traceback" not in body.decode()


@pytest.mark.parametrize(
    "body",
    [
        b" ", b"[]", b"7", b'"text"', b"{", b"{}}", b"\xff\xfe{\x00", b"\x00" * 100,
        b'{"config": []}', b'{"config": {"memory_mb": 1e400}}', b'{"config": {"memory_mb": NaN}}',
        b'{"config": {"cpus": -1}}', b'{"config": {"cpus": 1e308}}',
        b'{"config": {"memory_mb": "512"}}', b'{"config": {"memory_mb": true}}',
        b'{"config": {"memory_mb": 99999999999999999999999999}}',
        *(b'{"config": {"network_config": {"ingress_ports": %s}}}' % ports
          for ports in (b"[0]", b"[65536]", b"[-1]", b"[1.5]", b'["80"]', b"80")),
        b'{"config": {"env": {"A=B": "x"}}}', b'{"config": {"env": {"A": "\\u0000"}}}',
        b'{"config": {"env": {"A": "\\ud800"}}}', b'{"config": {"cmd": [1]}}',
        b'{"name": "\\u0000"}', b'{"name": "\\udfff"}', b'{"slug": "../../etc"}',
        b'{"slug": "' + b"a" * 5000 + b'"}', b'{"image": {"$ne": null}}', b'{"image": ""}',
        b'{"idempotency_key": {}}', b'{"namespace": "A B"}', b'{"mode": "temporary", "mode": 7}',
        b"[" * 20_000, b'{"a":' * 20_000, b'{"name": "' + b"x" * 900_000 + b'"}',
    ],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_bodies_of_a_creation(api: Port, body: bytes) -> None:
    """Wrong types, sizes, ports and encodings are refused by name, in the envelope."""
    assert_refused(api.ask("POST", CREATE, JSON, body=body))


@pytest.mark.parametrize(
    "path",
    [
        "/workspace/ws_%00", "/workspace/%2e%2e%2f%2e%2e%2fetc", "/workspace/..%5c..",
        "/workspace/\udcff\udcfe", "/workspace/ws_" + "a" * 4000, "/workspace?page=-1",
        "/workspace?page=9e99", "/workspace?limit=1000000000000000000000", "/workspace?limit=%00",
        "/workspace?status=%F0%28%8C%BC", "/workspace//", "//workspace", "/%", "/%zz", "*",
        "/workspace/ws_00000000/runtime-api-access/%2e%2e/%2e%2e", "/a" * 2000,
        "/workspace/' OR 1=1 --".replace(" ", "%20"), "/workspace/ws_12345678;drop",
    ],
)  # fmt: skip
def test_paths(api: Port, path: str) -> None:
    """Odd paths and queries are not found or refused, in the envelope."""
    assert_refused(api.ask("GET", path))


@pytest.mark.parametrize(
    "headers",
    [
        ("X-A: " + "a" * 100_000,),
        tuple(f"X-{number}: {number}" for number in range(500)),
        ("X-A : space",),
        ("X-\udcff: odd",),
        ("Content-Length: -1",),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 99999999999999999999",),
        ("Transfer-Encoding: chunked", "Content-Length: 5"),
        ("Transfer-Encoding: gzip, chunked, chunked",),
        ("X_Client_ID: smuggled",),
        ("Expect: nonsense", "Content-Length: 0"),
        ("Authorization: Bearer " + "e" * 20_000,),
        ("Authorization: Basic \udcff",),
        ("Cookie: " + "a=b; " * 5000,),
    ],
    ids=lambda headers: headers[0][:30].encode("ascii", "replace").decode(),
)
def test_heads(port: Port, headers: tuple[str, ...]) -> None:
    """Heads too large, doubled or malformed end in a 4xx, or with the connection."""
    answer = port.ask("POST", "/workspace/none", *headers, body=b"0\r\n\r\n", length=False)
    if answer[0]:
        assert_refused(answer)


def test_lines_that_are_no_http(port: Port) -> None:
    """TLS, other protocols, half a request, garbage: a 4xx or an end, and the port lives on."""
    for raw in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"\r\n" * 2000 + b"x\r\n\r\n",
        bytes(range(256)) * 8 + b"\r\n\r\n",
    ):
        assert answered(port, raw) < 500, raw[:20]
    assert port.ask("GET", "/health")[0] in {200, 401, 404}


@pytest.mark.parametrize("kind", ["declared", "chunked"])
def test_a_body_that_is_too_large(api: Port, kind: str) -> None:
    """More than a MiB is a 413, however it is sent; nothing reads it to its end."""
    block = b"x" * 65536
    head = f"POST {CREATE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{JSON}\r\n{api.key}"
    if kind == "declared":
        size = 512 * 2**20
        raw = [f"{head}Content-Length: {size}\r\n\r\n".encode(), *([block] * 64)]
    else:
        chunk = b"10000\r\n" + block + b"\r\n"
        raw = [f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *([chunk] * 64), b"0\r\n\r\n"]
    status, _, body = send(api.address, *raw)
    assert status in {0, 413}, body
    if status:
        assert json.loads(body)["code"] == "payload_too_large"


def test_random_requests(port: Port) -> None:
    """Requests with random bytes changed in them never end in a 5xx."""
    chance = random.Random(SEED)
    # refused for more than a few changed bytes can put right
    wrong = b'"memory_mb": 1, "cpus": -1, "disk_size_mb": 1, "env": {"A=": "b"}, "ttl": "x"'
    body = b'{"name": 7, "slug": "..", "config": {%s}}' % wrong
    good = (
        f"POST {CREATE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{JSON}\r\n"
        f"{port.key}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    for _ in range(ROUNDS):
        raw = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        assert answered(port, raw) < 500, bytes(raw)


def answered(port: Port, raw: bytes | bytearray) -> int:
    """The status that raw bytes get when nothing follows them; 0 for none."""
    host, _, number = port.address.rpartition(":")
    with socket.create_connection((host, int(number)), timeout=20) as tcp:
        try:
            tcp.sendall(raw)
            tcp.shutdown(socket.SHUT_WR)
            answer = tcp.recv(65536)
        except ConnectionError:
            return 0
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0
