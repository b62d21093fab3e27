"""A real HAProxy on free loopback ports, with servers on 127.0.0.x standing for workspaces."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from tests.host.edge.upstream import Upstream
from tests.ports import free_address, free_port

from bastide.edge.edge import Edge, live_map, map_directory
from bastide.edge.haproxy import PROGRAM, Timeouts, render
from bastide.edge.maps import GatewayEntry, read_map, write_private
from bastide.edge.runtime_socket import RuntimeSocket
from bastide.gateway.keys import gateway_key
from bastide.gateway.tokens import Kind, mint
from bastide.settings import Listen, Settings

SUBNET = IPv4Network("127.0.0.0/24")
ONE, TWO = "ws_00000001", "ws_00000002"
RAW_ONE, RAW_TWO = "1" * 64, "2" * 64
DEADLINE = 20.0


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something that tells nobody has happened, with a deadline."""
    async with asyncio.timeout(DEADLINE):
        while not await holds():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


class Stage:
    """HAProxy, the control plane's side of it, two workspaces and an api, in one directory."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="edge-"))
        self.root.chmod(0o711)  # the edge's user must reach the api's socket
        self.settings = Settings(
            state_dir=self.root / "state",
            run_dir=self.root / "run",
            user="daemon",
            edge_user="nobody",
            listen=Listen(api=free_address(), gateway=free_address()),
        )
        for directory in (live_map(self.settings).parent, self.settings.api_socket.parent):
            directory.mkdir(parents=True)
        self.key = gateway_key(self.settings)
        self.runtime_port = free_port(("127.0.0.11", "127.0.0.12"))
        self.one = Upstream("one", "127.0.0.11", self.runtime_port)
        self.two = Upstream("two", "127.0.0.12", self.runtime_port)
        self.api = Upstream("api", None, path=str(self.settings.api_socket))
        self.timeouts = timeouts
        self.log = self.root / "haproxy.log"
        self.process: asyncio.subprocess.Process | None = None
        runtime = RuntimeSocket(self.settings.edge_socket, str(live_map(self.settings)))
        self.runtime = runtime
        self.edge = Edge(map_directory(self.settings), runtime, SUBNET)

    @property
    def gateway(self) -> str:
        return self.settings.gateway_url

    async def start_haproxy(self) -> None:
        """Start it as `prepare` does, but for a loopback subnet and a free runtime port."""
        directory = live_map(self.settings).parent
        entries, _ = read_map(map_directory(self.settings), SUBNET)
        lines = "".join(entry.line() for entry in entries.values())
        write_private(live_map(self.settings), lines.encode())
        config = render(
            self.settings,
            as_root=os.geteuid() == 0,
            runtime_port=self.runtime_port,
            subnet=SUBNET,
            timeouts=self.timeouts,
            descriptors=2000,
        )
        write_private(directory / "haproxy.cfg", config.encode())
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                PROGRAM,
                "-db",
                "-f",
                str(directory / "haproxy.cfg"),
                stdout=log,
                stderr=log,
                env={**os.environ, "BASTIDE_GATEWAY_KEY": self.key},
            )
        await until(self._listens)

    async def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()
        try:
            await self.runtime.process()
            host, port = self.settings.listen.gateway.split(":")
            _, writer = await asyncio.open_connection(host, int(port))
        except Exception:  # noqa: BLE001 - whatever it is, it does not listen yet
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async def kill_haproxy(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def open(self) -> None:
        """Both workspaces open, generation 1."""
        await self.edge.sync(
            [
                GatewayEntry(ONE, "127.0.0.11", 1, "open", RAW_ONE),
                GatewayEntry(TWO, "127.0.0.12", 1, "open", RAW_TWO),
            ]
        )

    async def close(self) -> None:
        await self.kill_haproxy()
        for upstream in (self.one, self.two, self.api):
            await upstream.stop()
        shutil.rmtree(self.root)

    def token(
        self,
        workspace: str = ONE,
        generation: int = 1,
        *,
        kind: Kind = "gateway",
        ttl: int = 3600,
        key: str | None = None,
    ) -> str:
        made, _ = mint(
            key or self.key,
            workspace,
            generation,
            kind,
            "10.201.0.2",
            9990,
            timedelta(seconds=ttl),
            datetime.now(UTC),
        )
        return made

    def bearer(self, workspace: str = ONE, generation: int = 1) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(workspace, generation)}"}

    async def raw(self, request: bytes, *, api: bool = False) -> bytes:
        """Send bytes as they are, read until HAProxy closes or the deadline is over."""
        listen = self.settings.listen.api if api else self.settings.listen.gateway
        host, port = listen.split(":")
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(request)
                await writer.drain()
                return await reader.read(-1)
            finally:
                writer.close()


def header(seen: dict[str, Any], name: str) -> list[str]:
    """The values of a header an upstream got."""
    return [value for key, value in seen["headers"] if key.lower() == name.lower()]


def body_of(answer: bytes) -> dict[str, Any]:
    """The JSON body of a raw answer."""
    document: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return document
