"""The HTTP core: authentication, envelope, limits, life of a connection."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from tests.agent.conftest import CONTROL_TOKEN, DEADLINE, RUNTIME_TOKEN, Agent, start_agent


def raw(agent: Agent, data: bytes) -> bytes:
    """Send bytes to the runtime port; everything that comes back until it closes."""
    with socket.create_connection(("127.0.0.1", agent.runtime_port), timeout=DEADLINE) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
        return b"".join(parts)


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """One request on an open connection, and the first bytes of its answer."""
    sock.sendall(data)
    return sock.recv(65536)


def test_health_needs_the_token(agent: Agent, http: httpx.Client) -> None:
    """A good token is let in; none, a wrong one and the other port's are not."""
    assert http.get("/health").json() == {"status": "ok"}
    for token in ("", "x", CONTROL_TOKEN, RUNTIME_TOKEN + "0"):
        with agent.client(token or "-") as client:
            answer = client.get("/health")
            assert answer.status_code == 401
            assert answer.json()["success"] is False
            assert answer.json()["code"] == "unauthorized"


def test_query_token_only_where_headers_are_impossible(agent: Agent) -> None:
    """`?token=` is not taken on ordinary paths."""
    base = f"http://127.0.0.1:{agent.runtime_port}"
    assert httpx.get(f"{base}/health?token={RUNTIME_TOKEN}").status_code == 401
    assert httpx.get(f"{base}/desktop/status?token={RUNTIME_TOKEN}").status_code == 200


def test_envelope_and_request_id(http: httpx.Client) -> None:
    """Errors carry code, message and the caller's request id, in body and header."""
    answer = http.get("/nothing", headers={"X-Request-ID": "req-7"})
    assert answer.status_code == 404
    assert answer.headers["x-request-id"] == "req-7"
    body = answer.json()
    assert body["success"] is False
    assert body["error"] == body["code"] == "not_found"
    assert body["request_id"] == "req-7"
    assert http.get("/health").headers["x-request-id"].startswith("req_")


def test_wrong_method_lists_the_right_ones(http: httpx.Client) -> None:
    """405 with Allow."""
    answer = http.patch("/health")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert answer.json()["code"] == "method_not_allowed"


def test_targets(http: httpx.Client) -> None:
    """The prefix of a known target is accepted, an unknown one is 404."""
    assert http.get("/runtimes/default/health").json() == {"status": "ok"}
    assert http.get("/runtimes/local/health").json() == {"status": "ok"}
    assert http.get("/runtimes/mac/health").status_code == 404
    assert http.get("/runtimes/default/desktop/status").status_code == 400
    listing = http.get("/runtimes").json()
    assert listing["default_target"] == "default"
    assert listing["targets"][0]["available"] is True


def test_info(http: httpx.Client) -> None:
    """The runtime describes itself."""
    info = http.get("/runtime").json()
    assert info["os"] == "linux"
    assert info["cpus"] >= 1
    assert http.get("/desktop/status").json()["supported"] is False


def test_empty_json_body_with_content_type(http: httpx.Client) -> None:
    """The vendor's client sends a JSON content type on everything."""
    headers = {"Content-Type": "application/json"}
    assert http.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "junk",
    [
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_junk_is_refused(agent: Agent, http: httpx.Client, junk: bytes) -> None:
    """Whatever the bytes, the answer is a 4xx or nothing, and the agent goes on."""
    answer = raw(agent, junk)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4") or b" 501 " in answer[:20]
    assert http.get("/health").status_code == 200


def test_keep_alive_and_pipelining(agent: Agent) -> None:
    """Two requests sent at once on one connection get two answers in order."""
    head = f"Host: a\r\nAuthorization: Bearer {RUNTIME_TOKEN}\r\n".encode()
    with socket.create_connection(("127.0.0.1", agent.runtime_port), timeout=DEADLINE) as sock:
        sock.sendall(
            b"GET /health HTTP/1.1\r\nX-Request-ID: one\r\n" + head + b"\r\n"
            b"GET /health HTTP/1.1\r\nX-Request-ID: two\r\nConnection: close\r\n" + head + b"\r\n"
        )
        data = b""
        while part := sock.recv(65536):
            data += part
    assert data.count(b"HTTP/1.1 200") == 2
    assert data.index(b"one") < data.index(b"two")


def test_head_has_no_body_and_keeps_the_connection(agent: Agent) -> None:
    """HEAD on a GET path is a 405 without a body, and the connection goes on."""
    head = f"Host: a\r\nAuthorization: Bearer {RUNTIME_TOKEN}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", agent.runtime_port), timeout=DEADLINE) as sock:
        first = exchange(sock, b"HEAD /health HTTP/1.1\r\n" + head)
        assert first.startswith(b"HTTP/1.1 405")
        assert first.endswith(b"\r\n\r\n")
        assert exchange(sock, b"GET /health HTTP/1.1\r\n" + head).startswith(b"HTTP/1.1 200")


def test_unread_body_does_not_spoil_the_connection(agent: Agent) -> None:
    """A small body nobody wanted is swallowed; a large one ends the connection after the answer."""
    head = f"Host: a\r\nAuthorization: Bearer {RUNTIME_TOKEN}\r\n".encode()
    with socket.create_connection(("127.0.0.1", agent.runtime_port), timeout=DEADLINE) as sock:
        sock.sendall(b"POST /nothing HTTP/1.1\r\nContent-Length: 5\r\n" + head + b"\r\nhello")
        assert b"404" in sock.recv(65536)
        assert b"200" in exchange(sock, b"GET /health HTTP/1.1\r\n" + head + b"\r\n")
        answer = exchange(
            sock, b"POST /nothing HTTP/1.1\r\nContent-Length: 99999999\r\n" + head + b"\r\nhello"
        )
        assert b"404" in answer
        assert b"connection: close" in answer.lower()


def test_control_port_switches_the_runtime(tmp_path: Path) -> None:
    """Enable, rotate (older tokens die), disable, all live; wrong documents are refused."""
    agent = start_agent(
        tmp_path, runtime={"host": "127.0.0.1", "port": 0, "enabled": False, "token": None}
    )
    try:
        with agent.control() as control:
            assert control.get("/control/health").json()["boot_id"] == "boot-1"
            for wrong in (
                {},
                {"enabled": "maybe"},
                {"enabled": True},
                {"enabled": True, "token": "x"},
            ):
                assert control.put("/control/runtime", json=wrong).status_code == 400
            first = control.put("/control/runtime", json={"enabled": True, "token": RUNTIME_TOKEN})
            assert first.json()["running"] is True
            port = first.json()["port"]
            with agent.client(port=port) as client:
                assert client.get("/health").status_code == 200
                control.put("/control/runtime", json={"enabled": True, "token": "cd" * 32})
            # The rotation has cut the older connection; the old token gets no new one either.
            with agent.client(port=port) as client:
                assert client.get("/health").status_code == 401
            with agent.client("cd" * 32, port) as client:
                assert client.get("/health").status_code == 200
                off = control.put("/control/runtime", json={"enabled": False, "token": None})
                assert off.json() == {"enabled": False, "running": False, "port": port}
                with pytest.raises(httpx.TransportError):
                    client.get("/health")
            on = control.put("/control/runtime", json={"enabled": True, "token": "cd" * 32})
            assert on.json()["port"] == port
            assert control.get("/control/health").json()["status"] == "ok"
    finally:
        assert agent.stop() == 0


def test_main_command_ends_the_agent(tmp_path: Path) -> None:
    """The exit code of the main command is the agent's."""
    marker = tmp_path / "ran"
    agent = start_agent(tmp_path, cmd=["sh", "-c", 'echo "$GREETING $PWD" > ran; exit 7'])
    assert agent.process.wait(DEADLINE) == 7
    assert marker.read_text() == f"hello {tmp_path}\n"


def test_main_command_that_cannot_start(tmp_path: Path) -> None:
    """A program that is not there is 127, as in a shell."""
    agent = start_agent(tmp_path, cmd=["/no/such/program"])
    assert agent.process.wait(DEADLINE) == 127


def test_term_ends_the_main_command(tmp_path: Path) -> None:
    """SIGTERM reaches the main command, whose code is told."""
    agent = start_agent(
        tmp_path, cmd=["sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"]
    )
    with agent.control() as control:
        while b"up" not in control.get("/control/output").content:
            pass
    assert agent.stop() == 3
