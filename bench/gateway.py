"""What the gateway costs: the same request straight to a server and through HAProxy.

Run with `python bench/gateway.py [--json] [--requests N] [--workspaces N]`. It starts a HAProxy
of its own on free loopback ports, with as many workspaces in its map as asked, and a tiny HTTP
server in the place of a workspace. Nothing of a running cloud is touched.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

import structlog

from bastide.edge.edge import Edge, live_map, map_directory
from bastide.edge.haproxy import PROGRAM, render
from bastide.edge.maps import GatewayEntry, write_private
from bastide.edge.runtime_socket import RuntimeSocket, RuntimeSocketError
from bastide.gateway.keys import gateway_key
from bastide.gateway.tokens import mint
from bastide.settings import Listen, Settings

SUBNET = IPv4Network("127.0.0.0/24")
MACHINE = "127.0.0.11"
WORKSPACE = "ws_00000000"
RAW = "1" * 64
BODY = b'{"success":true,"exit_code":0}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)

Samples = tuple[list[float], int]  # milliseconds of those that succeeded, and how many were tried


class _Machine(asyncio.Protocol):
    """Answers every request head with the same JSON."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in data:
            self.transport.write(ANSWER)


async def _once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(BODY))
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(head.split(b"\r\n")[0].decode())


async def _timed(count: int, work: Callable[[], Awaitable[None]]) -> Samples:
    times: list[float] = []
    for _ in range(count):
        start = time.perf_counter()
        try:
            await work()
        except (OSError, asyncio.IncompleteReadError):
            continue
        times.append((time.perf_counter() - start) * 1000)
    return times, count


async def _kept(count: int, host: str, port: int, request: bytes) -> Samples:
    """Requests one after another on one connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        await _once(reader, writer, request)
        return await _timed(count, lambda: _once(reader, writer, request))
    finally:
        writer.close()


async def _fresh(count: int, host: str, port: int, request: bytes) -> Samples:
    """Each request on a connection of its own."""

    async def work() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            await _once(reader, writer, request)
        finally:
            writer.close()

    return await _timed(count, work)


def _settings(root: Path) -> Settings:
    def free() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return Settings(
        state_dir=root / "state",
        run_dir=root / "run",
        user="daemon",
        edge_user="nobody",
        listen=Listen(api=f"127.0.0.1:{free()}", gateway=f"127.0.0.1:{free()}"),
    )


async def _haproxy(
    settings: Settings, port: int, runtime: RuntimeSocket
) -> subprocess.Popen[bytes]:
    directory = live_map(settings).parent
    directory.mkdir(parents=True)
    write_private(live_map(settings), b"")
    config = render(settings, as_root=os.geteuid() == 0, runtime_port=port, subnet=SUBNET)
    write_private(directory / "haproxy.cfg", config.encode())
    process = subprocess.Popen(  # noqa: ASYNC220
        [PROGRAM, "-db", "-f", str(directory / "haproxy.cfg")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "BASTIDE_GATEWAY_KEY": gateway_key(settings)},
    )
    async with asyncio.timeout(20):
        while True:
            try:
                await runtime.process()
            except RuntimeSocketError:
                await asyncio.sleep(0.01)
            else:
                return process


async def measure(requests: int, workspaces: int) -> dict[str, Samples]:
    """Every metric's samples."""
    root = Path(tempfile.mkdtemp(prefix="bench-gateway-"))
    os.chmod(root, 0o711)  # noqa: PTH101 - the edge's user must reach what is inside
    process: subprocess.Popen[bytes] | None = None
    server = await asyncio.get_running_loop().create_server(_Machine, MACHINE, 0)
    try:
        port = server.sockets[0].getsockname()[1]
        settings = _settings(root)
        runtime = RuntimeSocket(settings.edge_socket, str(live_map(settings)))
        process = await _haproxy(settings, port, runtime)
        edge = Edge(map_directory(settings), runtime, SUBNET)
        names = [f"ws_{number:08x}" for number in range(workspaces)]
        await edge.sync([GatewayEntry(name, MACHINE, 1, "open", RAW) for name in names])
        key, now = gateway_key(settings), datetime.now(UTC)
        token, _ = mint(key, WORKSPACE, 1, "gateway", MACHINE, port, timedelta(hours=1), now)

        def request(credential: str) -> bytes:
            head = f"GET /health HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {credential}\r\n\r\n"
            return head.encode()

        host, gateway = settings.listen.gateway.split(":")
        turn = iter(range(1, 10**9))

        async def publish() -> None:
            number = next(turn)
            name = names[number % workspaces]
            await edge.publish(name, MACHINE, number, "open", RAW)

        return {
            "direct_kept": await _kept(requests, MACHINE, port, request(RAW)),
            "gateway_kept": await _kept(requests, host, int(gateway), request(token)),
            "direct_fresh": await _fresh(requests, MACHINE, port, request(RAW)),
            "gateway_fresh": await _fresh(requests, host, int(gateway), request(token)),
            "publish": await _timed(min(requests, 500), publish),
        }
    finally:
        if process is not None:
            process.kill()
            process.wait()
        server.close()
        shutil.rmtree(root)


def _summary(samples: Samples) -> dict[str, float | int | str]:
    times, tried = sorted(samples[0]), samples[1]

    def at(share: float) -> float:
        return round(times[min(len(times) - 1, int(len(times) * share))], 3) if times else 0.0

    return {
        "p50": at(0.50),
        "p95": at(0.95),
        "p99": at(0.99),
        "n": tried,
        "success_rate": round(len(times) / tried, 4),
        "unit": "ms",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--requests", type=int, default=2000, help="requests per metric")
    parser.add_argument("--workspaces", type=int, default=2000, help="entries in the map")
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    results = asyncio.run(measure(arguments.requests, max(1, arguments.workspaces)))
    table = {name: _summary(samples) for name, samples in results.items()}
    if arguments.json:
        print(json.dumps(table))
        return
    print(f"{'':16}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'n':>8}{'success':>10}")
    for name, row in table.items():
        cells = f"{row['p50']:>10}{row['p95']:>10}{row['p99']:>10}{row['n']:>8}"
        print(f"{name:16}{cells}{row['success_rate']:>10}")


if __name__ == "__main__":
    main()
