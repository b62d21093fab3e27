"""A server-side WebSocket (wsproto) over a connection that left HTTP."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from bastide_agent.http.errors import ApiError, ClientGoneError

if TYPE_CHECKING:
    from wsproto import WSConnection

    from bastide_agent.http.channel import Channel
    from bastide_agent.http.message import Request

MESSAGE_LIMIT = 1024 * 1024  # bytes of one message from a client
TOO_BIG = 1009


class WebSocket:
    """Messages both ways. `pending` bytes have been sent but not taken by the client yet."""

    __slots__ = ("_channel", "_closed", "_connection", "_messages", "_parts", "_size")

    def __init__(self, channel: Channel, connection: WSConnection) -> None:
        self._channel = channel
        self._connection = connection
        self._messages: deque[str | bytes] = deque()
        self._parts: list[str | bytes] = []
        self._size = 0
        self._closed = False

    @classmethod
    async def accept(cls, request: Request) -> WebSocket:
        """Answer the handshake.

        Raises:
            ApiError: 400 or 426 when the request is no WebSocket handshake.
        """
        from wsproto import ConnectionType, WSConnection  # noqa: PLC0415  (only when needed)
        from wsproto.events import AcceptConnection  # noqa: PLC0415
        from wsproto.utilities import RemoteProtocolError  # noqa: PLC0415

        if "websocket" not in (request.header("upgrade") or "").lower():
            headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
            message = "this path speaks WebSocket: send an upgrade request"
            raise ApiError(426, "upgrade_required", message, headers=headers)
        connection = WSConnection(ConnectionType.SERVER)
        try:
            target = request.raw_path + b"?" + request.raw_query
            connection.initiate_upgrade_connection(list(request.headers), target)
            for _ in connection.events():
                pass
            answer = connection.send(AcceptConnection())
        except RemoteProtocolError as error:
            raise ApiError(400, "bad_request", f"bad WebSocket handshake: {error}") from None
        channel = request.take_over()
        channel.send(answer)
        return cls(channel, connection)

    async def receive(self) -> str | bytes | None:
        """The next whole message; None when the client has closed or is gone."""
        while not self._messages:
            if self._closed:
                return None
            data = await self._channel.read()
            self._take(data or None)
        return self._messages.popleft()

    def _take(self, data: bytes | None) -> None:
        from wsproto import events  # noqa: PLC0415
        from wsproto.utilities import RemoteProtocolError  # noqa: PLC0415

        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, events.Ping):
                    self._send(event.response())
                elif isinstance(event, events.Message):
                    self._part(event.data, finished=event.message_finished)
                elif isinstance(event, events.CloseConnection):
                    if not self._closed:
                        self._send(event.response())
                    self._closed = True
        except RemoteProtocolError as error:
            if error.event_hint is not None and data is not None:
                self._send(error.event_hint)
            self._closed = True
        except ClientGoneError:
            self._closed = True
        if data is None:
            self._closed = True

    def _part(self, data: str | bytes | bytearray, *, finished: bool) -> None:
        part = data if isinstance(data, str) else bytes(data)
        self._size += len(part)
        if self._size > MESSAGE_LIMIT:
            self.close(TOO_BIG, f"a message may have at most {MESSAGE_LIMIT} bytes")
            return
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

        if self._closed:
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
        """Ask for a pong, so that a dead client is noticed."""
        from wsproto.events import Ping  # noqa: PLC0415

        if not self._closed:
            self._send(Ping())

    @property
    def pending(self) -> int:
        """Bytes sent that the kernel has not taken yet."""
        return self._channel.pending

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with a code and a reason (at most 123 bytes)."""
        from wsproto.events import CloseConnection  # noqa: PLC0415

        if not self._closed:
            self._closed = True
            self._send(CloseConnection(code=code, reason=reason))
            self._channel.close()
