"""The services of a server and how they are asked whether they are ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bastide.settings import Settings
from bastide.supervisor.cloud import guard_launch, make_directories, services
from bastide.supervisor.probe import address_answers, socket_answers
from bastide.supervisor.process import Process


def test_node_resolver_api_edge_in_this_order(tmp_path: Path) -> None:
    """Each service starts after what it needs, from this Python and isolated from its caller."""
    found = services(Settings(state_dir=tmp_path, run_dir=tmp_path))
    assert [service.name for service in found] == ["node", "resolver", "api", "edge", "bastion"]
    assert found[0].launch().argv[1:] == ("-I", "-m", "bastide.node")
    assert found[1].launch().argv[1:] == ("-I", "-m", "bastide.resolver")
    assert found[2].launch().argv[1:] == ("-I", "-m", "bastide.api")


def test_the_guard_is_told_whom_to_watch(tmp_path: Path) -> None:
    """Its command names the record, the process and the command that starts another."""
    argv = guard_launch(Settings(run_dir=tmp_path), Process(12, 345)).argv
    assert argv[3:7] == ("bastide.supervisor.guard", str(tmp_path / "supervisor.json"), "12", "345")
    assert argv[-1] == "bastide.supervisor"


def test_directories_are_made_once(tmp_path: Path) -> None:
    """Making them again changes nothing; logs are not for everybody."""
    settings = Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    make_directories(settings)
    make_directories(settings)
    assert (tmp_path / "state" / "log").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "run").is_dir()


@asynccontextmanager
async def answering(status: str, path: Path) -> AsyncIterator[str]:
    """A server that answers every request with `status`, on a socket and a port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    local = await asyncio.start_unix_server(answer, path)
    tcp = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with local, tcp:
        yield f"127.0.0.1:{tcp.sockets[0].getsockname()[1]}"


async def test_only_200_is_ready(tmp_path: Path) -> None:
    """200 is ready, an error is not, over socket and TCP alike."""
    path = tmp_path / "s.sock"
    async with answering("200 OK", path) as address:
        assert await socket_answers(path, "/x")
        assert await address_answers(address, "/x")
    path.unlink(missing_ok=True)
    async with answering("503 No", path) as address:
        assert not await socket_answers(path, "/x")
        assert not await address_answers(address, "/x")


async def test_nobody_there_is_not_ready(tmp_path: Path) -> None:
    """An absent socket and a closed port are answers too."""
    assert not await socket_answers(tmp_path / "absent.sock", "/")
    assert not await address_answers("127.0.0.1:1", "/")
