"""The one WebSocket, frame by frame (spec runtime 8)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.agent.conftest import Agent
from tests.agent.wire import RawWire, Wire, new_terminal, wait_until
from websockets.exceptions import ConnectionClosed

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(autouse=True)
def no_terminals(http: httpx.Client) -> Iterator[None]:
    """Every test leaves the shared agent without terminals."""
    yield
    for terminal in http.get("/terminals").json()["terminals"]:
        http.delete(f"/terminals/{terminal['id']}")


def scrollback(http: httpx.Client, number: int) -> bytes:
    """What a terminal printed, by REST."""
    return base64.b64decode(http.get(f"/terminals/{number}/scrollback").json()["scrollback"])


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Upgrade": ""}, 426), ({"Upgrade": "h2c"}, 426), ({"Connection": "close"}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426), ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": ""}, 400), ({"Authorization": "Bearer wrong"}, 401),
    ],
)  # fmt: skip
def test_bad_handshakes(http: httpx.Client, changes: dict[str, str], status: int) -> None:
    """A request that is no good handshake gets an envelope, not a connection."""
    answer = http.get("/ws", headers={**HANDSHAKE, **changes})
    assert answer.status_code == status
    assert answer.json()["success"] is False


def test_the_handshake_on_the_wire(agent: Agent) -> None:
    """The answer to the RFC's own example key is the RFC's; no Host decides about it."""
    with RawWire(agent) as wire:
        assert wire.head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in wire.head


def test_frames_byte_by_byte(http: httpx.Client, agent: Agent) -> None:
    """Output frames are the id byte and raw bytes; the exit frame has the published form."""
    number = new_terminal(http, "sh", "-c", "stty raw -echo; echo; head -c 4; exit 3")
    with Wire(agent) as wire:
        wire.until_output(number, "\n")
        wire.frames.clear()
        wire.socket.send(bytes((number, 0, 255, 0xC3, 7)))
        wire.until_text(type="exit")
    assert b"".join(frame[1:] for frame in wire.frames if isinstance(frame, bytes)) == (
        b"\x00\xff\xc3\x07"
    )
    assert all(frame[0] == number for frame in wire.frames if isinstance(frame, bytes))
    assert wire.frames[-1] == f'{{"channel":"terminal","type":"exit","id":"{number}","code":3}}'


def test_replay_on_connect(http: httpx.Client, agent: Agent) -> None:
    """Who connects gets every scrollback, then the ends of those that ended, and goes on."""
    ended = new_terminal(http, "sh", "-c", "echo first; exit 5")
    running = new_terminal(http, "sh", "-c", "echo second; cat")
    wait_until(lambda: not http.get(f"/terminals/{ended}").json()["alive"])
    wait_until(lambda: b"second" in scrollback(http, running))
    for _ in range(2):
        with Wire(agent) as wire:
            wire.until_output(ended, "first\r\n")
            wire.until_output(running, "second\r\n")
            assert wire.until_text(type="exit", id=str(ended))["code"] == 5
            output = f"{bytes((ended,)).decode()}first"
            first_frame = next(
                i
                for i, frame in enumerate(wire.frames)
                if isinstance(frame, bytes) and frame.startswith(output.encode())
            )
            exit_frame = next(i for i, frame in enumerate(wire.frames) if isinstance(frame, str))
            assert first_frame < exit_frame
            wire.type(running, "x")
            wire.until_output(running, "x")


def test_a_cleared_scrollback_is_not_replayed(http: httpx.Client, agent: Agent) -> None:
    """What was cleared is not sent to the next connection."""
    number = new_terminal(http, "sh", "-c", "echo secret; cat")
    wait_until(lambda: b"secret" in scrollback(http, number))
    http.delete(f"/terminals/{number}/scrollback")
    with Wire(agent) as wire:
        wire.type(number, "after\n")
        assert "secret" not in wire.until_output(number, "after")


def test_a_new_connection_takes_over(http: httpx.Client, agent: Agent) -> None:
    """The older connection is closed with 4001, the newer one carries on."""
    number = new_terminal(http, "cat")
    with Wire(agent) as old:
        old.type(number, "one\n")
        old.until_output(number, "one\r\none\r\n")
        with Wire(agent) as new:
            new.until_output(number, "one\r\none\r\n")
            with pytest.raises(ConnectionClosed) as closed:
                old.until(lambda: False)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "taken over")
            new.type(number, "two\n")
            new.until_output(number, "two\r\ntwo\r\n")


def test_many_takeovers(http: httpx.Client, agent: Agent) -> None:
    """A storm of connections leaves one, and no memory."""
    number = new_terminal(http, "cat")
    wires = [RawWire(agent) for _ in range(60)]
    try:
        with Wire(agent) as wire:
            wire.type(number, "still here\n")
            wire.until_output(number, "still here\r\nstill here\r\n")
        assert wires[-1].close_code() == 4001
    finally:
        for raw in wires:
            raw.socket.close()
    assert agent.memory_kib() < 40 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "{", "[]", "null", "1" * 5000, '"resize"', "[" * 60000,
        '{"channel":"terminal","type":"resize"}',
        '{"channel":"terminal","type":"resize","id":"99","cols":10,"rows":10}',
        '{"channel":"terminal","type":"resize","id":{},"cols":10,"rows":10}',
        '{"channel":"terminal","type":"resize","id":"1","cols":10,"rows":1e99}',
        '{"channel":"watcher","type":"ready"}', '{"type":"\\ud800"}', "9" * 70000,
    ],
)  # fmt: skip
def test_unknown_messages_are_ignored(http: httpx.Client, agent: Agent, text: str) -> None:
    """Text nobody knows, unknown terminals and empty frames change nothing."""
    number = new_terminal(http, "sh", "-c", "stty size; cat")
    with Wire(agent) as wire:
        wire.until_output(number, "24 80")
        wire.socket.send(text)
        wire.socket.send(b"")
        wire.socket.send(bytes((number,)))
        for unknown in (0, number + 1, 255):
            wire.socket.send(bytes((unknown,)) + b"x")
        wire.type(number, "fine\n")
        wire.until_output(number, "fine\r\nfine\r\n")
    terminal = http.get(f"/terminals/{number}").json()
    assert (terminal["cols"], terminal["rows"]) == (80, 24)


def test_messages_in_fragments(http: httpx.Client, agent: Agent) -> None:
    """A message in several frames is one message: only its first byte is the id."""
    number = new_terminal(http, "cat")
    with Wire(agent) as wire:
        wire.socket.send([bytes((number,)), b"a", b"b\n"])
        wire.until_output(number, "ab\r\nab\r\n")
        text = json.dumps({"type": "resize", "id": number, "cols": 70, "rows": 20})
        wire.socket.send([text[:10], text[10:]])
        wait_until(lambda: http.get(f"/terminals/{number}").json()["cols"] == 70)


def test_too_large_messages_close_with_1009(http: httpx.Client, agent: Agent) -> None:
    """A message of more than a MiB ends the connection; a MiB exactly does not."""
    number = new_terminal(http, "sh", "-c", "stty raw -echo; echo ready; exec cat > /dev/null")
    with Wire(agent) as wire:
        wire.until_output(number, "ready")
        wire.socket.send(bytes((number,)) * 2**20)
        wire.socket.ping().wait(10)
        wire.socket.send(bytes((number,)) * (2**20 + 1))
        with pytest.raises(ConnectionClosed) as closed:
            wire.until(lambda: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    assert http.get(f"/terminals/{number}").json()["alive"] is True


def test_broken_frames_close_with_the_code_of_the_protocol(agent: Agent) -> None:
    """Reserved opcodes, bad lengths and bad UTF-8 are answered as the RFC says."""
    cases = [
        (0x3, b"x", 1002), (0x0, b"x", 1002), (0x9, b"x" * 126, 1002),
        (0x1, b"\xff\xfe", 1007), (0x8, b"\x00", 1002),
    ]  # fmt: skip
    for opcode, payload, code in cases:
        with RawWire(agent) as wire:
            wire.send(opcode, payload)
            assert wire.close_code() == code, (opcode, payload[:4])
    with RawWire(agent) as wire:
        wire.socket.sendall(b"\x82\x02ab")  # not masked
        assert wire.close_code() == 1002
    with RawWire(agent) as wire:
        wire.send(0x2, b"x" * 1000, length=2**62)
        wire.send(0x2, b"x" * 2**20)  # taken for the rest of the first
        assert wire.close_code() == 1009


def test_pings_are_answered_and_sent(agent: Agent) -> None:
    """A ping comes with the connection; a client's ping is answered with its payload."""
    with RawWire(agent) as wire:
        assert wire.receive()[0] == 0x89
        wire.send(0x9, b"hello")
        assert wire.receive() == (0x8A, b"hello")
        wire.send(0x8, b"\x03\xe8")
        assert wire.close_code() == 1000


def test_a_client_that_stops_reading(http: httpx.Client, agent: Agent) -> None:
    """Its noisy terminals are held, not buffered; quiet ones go on; takeover sets all free."""
    noisy = [new_terminal(http, "seq", "1", "1000000000", scrollback_size=262144) for _ in range(4)]
    quiet = new_terminal(http, "sh")
    seen: list[bytes] = []

    def held() -> bool:
        """Whether nothing was printed since the last look."""
        before = seen.copy()
        seen[:] = [scrollback(http, number)[-100:] for number in noisy]
        return bool(before) and before == seen and all(seen)

    with RawWire(agent, receive_buffer=4096) as stalled:
        wait_until(held)
        stalled.send(0x2, bytes((quiet,)) + b"echo typed-$((40+2))\n")
        wait_until(lambda: b"typed-42" in scrollback(http, quiet))
        assert http.get("/health").json() == {"status": "ok"}
        assert agent.memory_kib() < 40 * 1024
        with Wire(agent) as wire:
            wire.until_output(quiet, "typed-42")
            for number in noisy:
                wire.until(lambda number=number: len(wire.output[number]) > 1_000_000)  # type: ignore[misc]
            assert "again-7" in wire.run(quiet, "echo again-$((3+4))")
    assert agent.memory_kib() < 40 * 1024


def test_a_lost_client_leaves_the_terminals_running(http: httpx.Client, agent: Agent) -> None:
    """A connection that breaks frees its terminals at once: they run on into the scrollback."""
    number = new_terminal(http, "sh", "-c", "seq 1 200000; echo over; cat")
    with RawWire(agent, receive_buffer=4096) as stalled:
        stalled.send(0x2, bytes((number,)) + b"x")
    wait_until(lambda: b"over" in scrollback(http, number))


def test_rotating_the_token_drops_the_connection_and_keeps_the_terminal(own_agent: Agent) -> None:
    """A new token cuts the WebSocket; the terminal and its scrollback are still there."""
    with own_agent.client() as http, Wire(own_agent) as wire:
        number = new_terminal(http, "sh", "-c", "echo kept; cat")
        wire.until_output(number, "kept")
        with own_agent.control() as control:
            control.put("/control/runtime", json={"enabled": True, "token": "ef" * 32})
        with pytest.raises(ConnectionClosed):
            wire.until(lambda: False)
    with own_agent.client("ef" * 32) as http:
        assert b"kept" in scrollback(http, number)
        assert http.get(f"/terminals/{number}").json()["alive"] is True


def test_nothing_is_loaded_before_it_is_used(own_agent: Agent) -> None:
    """Terminals, watchers and WebSockets cost nothing until the first request for them."""
    modules = Path(f"/proc/{own_agent.process.pid}/maps").read_text()
    assert "_ctypes" not in modules
    assert "termios" not in modules
    with own_agent.client() as http:
        assert http.get("/terminals").json() == {"success": True, "terminals": []}
        assert http.get("/watchers").json() == {"success": True, "watchers": []}
