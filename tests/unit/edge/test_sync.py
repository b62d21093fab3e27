"""The map as a whole: one bad entry takes no other with it."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

from bastide.edge.edge import Edge
from bastide.edge.maps import MAP_NAME, GatewayEntry
from bastide.edge.runtime_socket import RuntimeSocket


async def test_an_address_of_another_subnet_is_left_out(tmp_path: Path) -> None:
    """After the subnet was changed the others are still brought in force."""
    socket = RuntimeSocket(tmp_path / "none.sock", "map")
    edge = Edge(tmp_path, socket, IPv4Network("10.201.0.0/16"))
    good = GatewayEntry("ws_" + "a" * 12, "10.201.0.2", 1, "open", "5" * 64)
    bad = GatewayEntry("ws_" + "b" * 12, "10.99.0.2", 1, "open", "5" * 64)
    await edge.sync([bad, good])
    assert (tmp_path / MAP_NAME).read_text() == good.line()
