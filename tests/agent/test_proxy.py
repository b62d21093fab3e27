"""The loopback proxy (spec runtime 12)."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from tests.agent.conftest import DEADLINE, RUNTIME_TOKEN, Agent
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve


class App(BaseHTTPRequestHandler):
    """Tells what it was asked; streams; fails on request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer by path."""
        if self.path.startswith("/events"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: one\n\n")
            assert go_on.wait(DEADLINE)
            self.wfile.write(b"data: two\n\n")
            self.close_connection = True
            return
        length = self.headers.get("Content-Length")
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(length or 0))
        status = int(self.path[8:]) if self.path.startswith("/status/") else 200
        seen = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "size": len(body),
        }
        data = json.dumps(seen).encode()
        self.send_response(status, "Own Words")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.send_header("Location", "http://169.254.169.254/")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_GET  # noqa: N815


go_on = threading.Event()


@pytest.fixture(scope="module")
def app() -> Iterator[int]:
    """An app on a loopback port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), App)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def ws_app() -> Iterator[int]:
    """A WebSocket app that echoes, and tells the path it was opened with."""

    def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.send(f"{connection.request.path} {connection.subprotocol}")
        assert "authorization" not in connection.request.headers
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0, subprotocols=["chat"]) as server:  # type: ignore[list-item]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def test_by_header_query_and_path(http: httpx.Client, app: int) -> None:
    """The three ways to name a port; the path and the query arrive untouched."""
    named = http.get("/proxy/a%20b/c?x=1&y=%2F", headers={"X-Oblien-Proxy-Target": str(app)})
    assert named.json()["path"] == "/a%20b/c?x=1&y=%2F"
    assert named.json()["headers"]["host"] == f"localhost:{app}"
    full = http.get("/proxy", headers={"X-Oblien-Proxy-Target": f"127.0.0.1:{app}"})
    assert full.json()["path"] == "/"
    assert full.json()["headers"]["host"] == f"127.0.0.1:{app}"
    queried = http.get(f"/proxy/3000/x?b=2&x_oblien_target={app}&token=secret&tokens=3")
    assert queried.json()["path"] == "/3000/x?b=2&tokens=3"
    assert http.get(f"/proxy/{app}/deep/er?q").json()["path"] == "/deep/er?q"
    assert http.get(f"/proxy/{app}").json()["path"] == "/"


def test_credentials_never_reach_the_app(http: httpx.Client, app: int) -> None:
    """Credentials, the target, hop-by-hop headers and the token parameter are taken out."""
    answer = http.get(
        f"/proxy/x?t%6Fken={RUNTIME_TOKEN}",
        headers={
            "X-Oblien-Proxy-Target": str(app),
            "Connection": "keep-alive, X-Private",
            "X-Private": "1",
            "X-Own": "kept",
            "Cookie": "session=1",
        },
    )
    seen = answer.json()
    assert RUNTIME_TOKEN not in json.dumps(seen)
    assert "x-oblien-proxy-target" not in seen["headers"]
    assert "x-private" not in seen["headers"]
    assert seen["headers"]["x-own"] == "kept"
    assert seen["headers"]["cookie"] == "session=1"


@pytest.mark.parametrize("status", [200, 204, 301, 401, 404, 418, 500, 503])
def test_the_answer_is_verbatim(http: httpx.Client, app: int, status: int) -> None:
    """Status, reason, repeated headers and redirects pass as the app sent them."""
    answer = http.get(f"/proxy/{app}/status/{status}")
    assert answer.status_code == status
    assert answer.reason_phrase == "Own Words"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["location"] == "http://169.254.169.254/"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_methods_and_bodies(http: httpx.Client, app: int, method: str) -> None:
    """Every method passes, with and without a length."""
    body = b"x" * 300_000 if method != "HEAD" else b""
    for content in (body, iter([body[:1000], body[1000:]])):
        answer = http.request(method, f"/proxy/{app}/m", content=content)
        assert answer.status_code == 200
        if method != "HEAD":
            assert answer.json()["method"] == method
            assert answer.json()["size"] == len(body)


def test_event_streams_are_not_held_back(http: httpx.Client, app: int) -> None:
    """The first event arrives while the app has not written the second."""
    go_on.clear()
    with http.stream("GET", f"/proxy/{app}/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: one"
        go_on.set()
        assert [line for line in lines if line] == ["data: two"]


def test_nothing_listens(http: httpx.Client) -> None:
    """A closed port is a 502 in the envelope."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        answer = http.get(f"/proxy/{unused.getsockname()[1]}/x")
    assert answer.status_code == 502
    assert answer.json()["code"] == "bad_gateway"
    assert answer.json()["success"] is False


@pytest.mark.parametrize(
    "reply", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_no_http_is_a_502(http: httpx.Client, reply: bytes) -> None:
    """An app that closes at once or speaks something else does not confuse the agent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(reply)

        thread = threading.Thread(target=answer_once)
        thread.start()
        answer = http.get(f"/proxy/{listener.getsockname()[1]}/")
        thread.join()
    assert answer.status_code == 502
    assert answer.json()["code"] == "bad_gateway"


def test_an_answer_cut_in_the_middle_stays_cut(http: httpx.Client) -> None:
    """A body shorter than announced is an error for the client, not a success."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

        thread = threading.Thread(target=answer_once)
        thread.start()
        with pytest.raises(httpx.RemoteProtocolError):
            http.get(f"/proxy/{listener.getsockname()[1]}/")
        thread.join()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("0", 400), ("65536", 400), ("-1", 400), ("abc", 400), ("80a", 400),
        ("10.0.0.1:80", 403), ("169.254.169.254:80", 403), ("example.com:80", 403),
        ("0.0.0.0:80", 403), ("2130706433:80", 403), ("0177.0.0.1:80", 403), ("127.1:80", 403),
        ("0x7f.0.0.1:80", 403), ("::ffff:10.0.0.1:80", 403), ("[::ffff:127.0.0.1]:80", 403),
        ("127.0.0.1.evil.com:80", 403), ("user@127.0.0.1:80", 403), ("127.0.0.01:80", 403),
        ("127.0.0.256:80", 403), ("http://127.0.0.1:80", 403), ("127.0.0.1\t:80", 403),
    ],
)  # fmt: skip
def test_only_loopback_plainly_spelled(http: httpx.Client, target: str, status: int) -> None:
    """Every other host, however it is spelled, is refused before any connection."""
    for way in (
        {"headers": {"X-Oblien-Proxy-Target": target}},
        {"params": {"x_oblien_target": target}},
    ):
        answer = http.get("/proxy/x", **way)  # type: ignore[arg-type]
        assert answer.status_code == status, answer.text
        assert answer.json()["success"] is False


def test_websocket(agent: Agent, ws_app: int) -> None:
    """A WebSocket passes, by query as browsers do it; subprotocol, text and binary survive."""
    url = f"ws://127.0.0.1:{agent.runtime_port}/proxy/chat/room?token={RUNTIME_TOKEN}&x_oblien_target={ws_app}&a=1"
    with connect(url, subprotocols=["chat"], open_timeout=DEADLINE) as client:  # type: ignore[list-item]
        assert client.recv(timeout=DEADLINE) == "/chat/room?a=1 chat"
        for message in ("hello", b"\x00\xff" * 100_000):
            client.send(message)
            assert client.recv(timeout=DEADLINE) == message


def test_websocket_refused_by_the_app(agent: Agent, app: int) -> None:
    """An app that answers an upgrade with a page keeps its status, and the connection HTTP."""
    url = f"ws://127.0.0.1:{agent.runtime_port}/proxy/status/404"
    headers = {"Authorization": f"Bearer {RUNTIME_TOKEN}", "X-Oblien-Proxy-Target": str(app)}
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers=headers, open_timeout=DEADLINE)
    assert refused.value.response.status_code == 404


def test_a_client_that_leaves_ends_the_request(agent: Agent) -> None:
    """The app's connection is closed when the client goes away."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        port = listener.getsockname()[1]
        head = f"Host: x\r\nAuthorization: Bearer {RUNTIME_TOKEN}\r\n\r\n"
        request = f"GET /proxy/{port}/x HTTP/1.1\r\n{head}"
        with socket.create_connection(("127.0.0.1", agent.runtime_port)) as client:
            client.sendall(request.encode())
            peer, _ = listener.accept()
            peer.settimeout(DEADLINE)
            assert peer.recv(65536)
        end = time.monotonic() + DEADLINE
        with peer:
            assert peer.recv(1) == b""
        assert time.monotonic() < end
