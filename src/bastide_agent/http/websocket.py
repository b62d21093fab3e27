"""A server-side WebSocket (wsproto) over a connection that left HTTP."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from bastide_agent.http.errors import ApiError, ClientGoneError

if TYPE_CHECKING:
    from wsproto.connection import Connection

    from bastide_agent.http.channel import Channel
    from bastide_agent.http.message import Request

MESSAGE_LIMIT = 1024 * 1024  # bytes of one message from a client
PONG_LIMIT = 256 * 1024  # bytes waiting above which pings go unanswered
SEND_BUFFER = 128 * 1024  # bytes in the kernel: what a keystroke's echo may have to wait for
CLOSE_TIMEOUT = 5.0  # seconds a client may take to answer our close
TOO_BIG = 1009
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n\r\n"
)


class WebSocket:
    """Messages both ways. `pending` bytes have been sent but not taken by the client yet.

    `received` counts the bytes the client sent, pongs included: whether it is alive.
    """

    __slots__ = (
        "_channel", "_closed", "_closing", "_connection", "_messages", "_parts", "_size",
        "received",
    )  # fmt: skip

    def __init__(self, channel: Channel, connection: Connection) -> None:
        self._channel = channel
        self._connection = connection
        self._messages: deque[str | bytes] = deque()
        self._parts: list[str | bytes] = []
        self._size = 0
        self._closing = False  # our close has been sent
        self._closed = False
        self.received = 0

    @classmethod
    async def accept(cls, request: Request) -> WebSocket:
        """Answer the handshake.

        Raises:
            ApiError: 400 or 426 when the request is no WebSocket handshake.
        """
        from wsproto.connection import Connection, ConnectionType  # noqa: PLC0415  (when needed)
        from wsproto.utilities import generate_accept_token  # noqa: PLC0415

        # Not wsproto's own handshake: it decodes Host as IDNA, which costs a megabyte and fails
        # on names that are none.
        key = handshake_key(request)
        channel = request.take_over()
        channel.set_send_buffer(SEND_BUFFER)
        channel.send(ACCEPTED % generate_accept_token(key))
        return cls(channel, Connection(ConnectionType.SERVER))

    async def receive(self) -> str | bytes | None:
        """The next whole message; None when either side has closed or the client is gone."""
        while not self._messages or self._closing:
            if self._closed:
                return None
            data = await self._channel.read()
            self.received += len(data)
            try:
                self._take(data)
            except ClientGoneError:
                self._closed = True
        return self._messages.popleft()

    def _take(self, data: bytes) -> None:
        from wsproto import events  # noqa: PLC0415
        from wsproto.connection import ConnectionState  # noqa: PLC0415

        if not data:
            self._closed = True
            return
        self._connection.receive_data(data)
        for event in self._connection.events():
            if isinstance(event, events.CloseConnection):
                if self._connection.state is ConnectionState.REMOTE_CLOSING:
                    self._send(event.response())
                    self._closed = True
                elif self._closing:  # the answer to our close
                    self._closed = True
                else:  # the bytes break the protocol
                    self.close(event.code, event.reason or "")
                return
            if self._closing:
                continue
            if isinstance(event, events.Ping):
                if self.pending <= PONG_LIMIT:
                    self._send(event.response())
            elif isinstance(event, events.Message):
                self._part(event.data, finished=event.message_finished)

    def _part(self, data: str | bytes | bytearray, *, finished: bool) -> None:
        part = data if isinstance(data, str) else bytes(data)
        self._size += len(part)
        if self._size > MESSAGE_LIMIT:
            self.close(TOO_BIG, f"a message may have at most {MESSAGE_LIMIT} bytes")
            return
        if part or finished:  # parts of nothing would be kept without end
            self._parts.append(part)
        if finished:
            text = [item for item in self._parts if isinstance(item, str)]
            raw = [item for item in self._parts if isinstance(item, bytes)]
            self._messages.append("".join(text) if text else b"".join(raw))
            self._parts.clear()
            self._size = 0

    def _send(self, event: object) -> None:
        self._channel.send(self._connection.send(event))  # type: ignore[arg-type]

    def post(self, message: str | bytes) -> None:
        """Send a message without waiting; look at `pending` to hold back.

        Raises:
            ClientGoneError: the client is gone or has closed.
        """
        from wsproto.events import BytesMessage, TextMessage  # noqa: PLC0415

        if self._closing or self._closed:
            raise ClientGoneError("the WebSocket is closed")
        if isinstance(message, str):
            self._send(TextMessage(data=message))
        else:
            self._send(BytesMessage(data=message))

    async def send(self, message: str | bytes) -> None:
        """Send a message, and wait while the client is slow."""
        self.post(message)
        await self._channel.drain()

    async def drain(self) -> None:
        """Wait until the client has taken most of what was sent."""
        await self._channel.drain()

    def ping(self) -> None:
        """Ask for a pong, so that a dead client is noticed.

        Raises:
            ClientGoneError: the client is gone.
        """
        from wsproto.events import Ping  # noqa: PLC0415

        if not self._closing and not self._closed:
            self._send(Ping())

    @property
    def pending(self) -> int:
        """Bytes sent that the kernel has not taken yet."""
        return self._channel.pending

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a code and a reason (at most 123 bytes); `receive` ends with the answer.

        A client that does not answer in time is cut off: closing the connection at once could
        destroy the code on its way.

        Raises:
            ClientGoneError: the client is gone.
        """
        from wsproto.events import CloseConnection  # noqa: PLC0415

        if not self._closing and not self._closed:
            self._closing = True
            self._messages.clear()
            self._parts.clear()
            self._channel.abort_after(CLOSE_TIMEOUT)
            self._send(CloseConnection(code=code, reason=reason))

    def abort(self) -> None:
        """Cut the connection at once."""
        self._channel.abort()


def handshake_key(request: Request) -> bytes:
    """The client's key (RFC 6455, 4.2.1).

    Raises:
        ApiError: 426 when no WebSocket of version 13 is asked for, 400 when the key is wrong.
    """
    upgrade = (request.header("upgrade") or "").lower()
    tokens = (request.header("connection") or "").lower().replace(" ", "").split(",")
    if upgrade != "websocket" or "upgrade" not in tokens:
        message = "this path speaks WebSocket: send an upgrade request"
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        raise ApiError(426, "upgrade_required", message, headers=headers)
    if request.header("sec-websocket-version") != "13":
        message = "only version 13 of the WebSocket protocol is spoken here"
        raise ApiError(426, "upgrade_required", message, headers={"Sec-WebSocket-Version": "13"})
    key = request.header("sec-websocket-key") or ""
    if len(key) != 24 or not key.isascii() or not key.endswith("=="):
        raise ApiError(400, "bad_request", "Sec-WebSocket-Key must be 16 bytes in base64")
    return key.encode("ascii")
