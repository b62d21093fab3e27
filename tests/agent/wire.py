"""A client of `/ws` that remembers everything it got."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol, Self

import httpx
from tests.agent.conftest import DEADLINE, RUNTIME_TOKEN, Agent
from websockets.sync.client import connect


class Served(Protocol):
    """Where a runtime API is served, and what opens it."""

    @property
    def url(self) -> str:
        """Its base URL."""

    @property
    def token(self) -> str:
        """The bearer token."""


class Wire:
    """Output by terminal number, text frames in order, and every frame as it came."""

    def __init__(self, agent: Served) -> None:
        self._connecting = connect(
            f"ws{agent.url.removeprefix('http')}/ws",
            additional_headers={"Authorization": f"Bearer {agent.token}"},
            max_size=None, ping_interval=None, open_timeout=DEADLINE,
        )  # fmt: skip
        self.output: dict[int, bytearray] = defaultdict(bytearray)
        self.texts: list[dict[str, Any]] = []
        self.frames: list[str | bytes] = []
        self._runs = 0

    def __enter__(self) -> Self:
        self.socket = self._connecting.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self.socket.close()

    def until(self, reached: Callable[[], bool]) -> None:
        """Receive until something holds."""
        end = time.monotonic() + DEADLINE
        while not reached():
            try:
                frame = self.socket.recv(timeout=max(0.0, end - time.monotonic()))
            except TimeoutError:
                raise AssertionError(f"not seen: {self.output}, {self.texts[-20:]}") from None
            self.frames.append(frame)
            if isinstance(frame, bytes):
                self.output[frame[0]] += frame[1:]
            else:
                self.texts.append(json.loads(frame))

    def until_output(self, number: int, wanted: str, skip: int = 0) -> str:
        """Receive until a terminal has printed something (after `skip` bytes); all it printed."""
        self.until(lambda: wanted.encode() in self.output[number][skip:])
        return self.output[number].decode("utf-8", "replace")

    def until_text(self, **wanted: object) -> dict[str, Any]:
        """Receive until a text frame holds these values; that frame."""
        looked_at = 0

        def found() -> bool:
            nonlocal looked_at
            while looked_at < len(self.texts):
                if wanted.items() <= self.texts[looked_at].items():
                    return True
                looked_at += 1
            return False

        self.until(found)
        return self.texts[looked_at]

    def type(self, number: int, text: str) -> None:
        """Type into a terminal."""
        self.socket.send(bytes((number,)) + text.encode())

    def run(self, number: int, command: str) -> str:
        """Type a command line into a shell; what the terminal printed until it was done."""
        self._runs += 1
        start = len(self.output[number])
        self.type(number, f"{command}\necho done-$(({self._runs}+100000))\n")
        self.until_output(number, f"done-{self._runs + 100000}", start)
        return self.output[number][start:].decode("utf-8", "replace")

    def say(self, **values: object) -> None:
        """Send a text frame."""
        self.socket.send(json.dumps(values))


class RawWire:
    """A WebSocket on a bare socket, for what a good client never does."""

    def __init__(self, agent: Agent, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(("127.0.0.1", agent.runtime_port))
        self.socket.sendall(
            f"GET /ws?token={RUNTIME_TOKEN} HTTP/1.1\r\nHost: x..y\r\nUpgrade: websocket\r\n"
            "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self.socket.recv(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.socket.close()

    def send(self, opcode: int, payload: bytes, *, length: int | None = None) -> None:
        """Send one final frame; `length` may lie about its payload."""
        mask = os.urandom(4)
        size = len(payload) if length is None else length
        head = bytes((0x80 | opcode, 0x80 | min(size, 126 if size < 65536 else 127)))
        if size > 125:
            head += struct.pack("!H" if size < 65536 else "!Q", size)
        body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.socket.sendall(head + mask + body)

    def receive(self) -> tuple[int, bytes]:
        """One frame: first byte and payload."""
        first, size = self._exactly(2)
        if size == 126:
            size = int.from_bytes(self._exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(self._exactly(8), "big")
        return first, self._exactly(size)

    def close_code(self) -> int:
        """Receive up to the close frame; its code."""
        while True:
            first, payload = self.receive()
            if first == 0x88:
                return int.from_bytes(payload[:2], "big")

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            assert part, "the agent closed the connection"
            data += part
        return data


def new_terminal(http: httpx.Client, *cmd: str, **values: object) -> int:
    """Open a terminal; its number."""
    answer = http.post("/terminals", json={"cmd": list(cmd), **values})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def wait_until(reached: Callable[[], bool]) -> None:
    """Look again and again until something holds, within the deadline."""
    end = time.monotonic() + DEADLINE
    while not reached():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
