"""The map as a whole: one bad entry takes no other with it."""

from __future__ import annotations

import asyncio
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


async def test_what_is_in_force_already_is_not_told_again(tmp_path: Path) -> None:
    """Neither file nor HAProxy hear of it twice; a change, and a HAProxy left behind, do."""
    heard: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (await reader.readline()).decode()
        heard.append(command.split()[0])
        told = {"show": "Pid: 7\n", "prepare": "New version created: 1\n"}
        writer.write(told.get(heard[-1], "\n").encode())
        writer.close()

    server = await asyncio.start_unix_server(answer, tmp_path / "edge.sock")
    try:
        socket = RuntimeSocket(tmp_path / "edge.sock", "map")
        edge = Edge(tmp_path / "maps", socket, IPv4Network("10.201.0.0/16"))
        name = "ws_" + "a" * 12
        await edge.publish(name, "10.201.0.2", 1, "paused", "5" * 64)
        file = tmp_path / "maps" / MAP_NAME
        heard.clear()
        before = file.stat().st_ino
        await edge.publish(name, "10.201.0.2", 1, "paused", "5" * 64)
        assert heard == []
        assert file.stat().st_ino == before
        await edge.publish(name, "10.201.0.2", 1, "open", "5" * 64)
        assert heard == ["set"]
        assert " paused:" in file.read_text(), "that it was thawed is written later"
        running = asyncio.create_task(edge.run())
        async with asyncio.timeout(30):
            while " open:" not in file.read_text():  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
        running.cancel()
        await edge.publish(name, "10.201.0.2", 1, "paused", "5" * 64)
        await edge.publish(name, "10.201.0.2", 1, "closed", "5" * 64)
        assert " closed:" in file.read_text(), "what closes it is written at once"
        edge._behind.set()
        await edge.publish(name, "10.201.0.2", 1, "open", "5" * 64)
        assert "prepare" in heard
    finally:
        server.close()
        await server.wait_closed()
