"""Frames of a WebSocket message."""

from __future__ import annotations

from typing import cast

from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from bastide_agent.http.channel import Channel
from bastide_agent.http.websocket import WebSocket


def test_empty_frames_are_not_kept() -> None:
    """A message of thousands of empty frames takes no memory, and comes out whole."""
    client = Connection(ConnectionType.CLIENT)
    socket = WebSocket(cast("Channel", None), Connection(ConnectionType.SERVER))
    socket._take(client.send(TextMessage(data="a", message_finished=False)))
    for _ in range(5000):
        socket._take(client.send(TextMessage(data="", message_finished=False)))
    assert socket._parts == ["a"]
    socket._take(client.send(TextMessage(data="", message_finished=True)))
    assert list(socket._messages) == ["a"]
    socket._take(client.send(TextMessage(data="", message_finished=True)))
    assert list(socket._messages) == ["a", ""]
