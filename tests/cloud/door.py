"""The two ways to the runtime API of a workspace: the gateway, and 10.x:9990 from a neighbour."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from tests.cloud.cloud import Cloud

from bastide.node.cgroups import detect
from bastide.node.network.namespace import network_of, run_inside

TIMEOUT = 60.0
PIECE = 256 * 1024


@dataclass(frozen=True)
class Door:
    """A base URL and the token that opens it."""

    url: str
    token: str

    def http(self, timeout: float = TIMEOUT) -> httpx.Client:
        """A client of the runtime API."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=timeout,
            trust_env=False,
        )


def control_plane(cloud: Cloud) -> httpx.Client:
    """A bare client of the control plane, with the first admin key."""
    return httpx.Client(
        base_url=cloud.environment["BASTIDE_API_URL"],
        headers={
            "X-Client-ID": cloud.environment["BASTIDE_CLIENT_ID"],
            "X-Client-Secret": cloud.environment["BASTIDE_CLIENT_SECRET"],
        },
        timeout=TIMEOUT,
        trust_env=False,
    )


def gateway(cloud: Cloud, workspace: str) -> Door:
    """The way of a client anywhere: through the edge, with a gateway token."""
    with control_plane(cloud) as api:
        token = _ask(api, "POST", f"/workspace/{workspace}/runtime-api-access/enable")["token"]
    return Door(cloud.environment["BASTIDE_GATEWAY_URL"], token)


@contextmanager
def direct(cloud: Cloud, workspace: str, caller: str) -> Iterator[Door]:
    """The way of another workspace that has a private link: straight, with the raw token."""
    with control_plane(cloud) as api, ExitStack() as stack:
        _ask(api, "POST", f"/workspace/{workspace}/runtime-api-access/enable")
        _ask(api, "PATCH", f"/workspace/{workspace}/network", {"private_link_ids": [caller]})
        raw = _ask(api, "GET", f"/workspace/{workspace}/runtime-api-access/token/raw")
        process = min(detect(cloud.settings.network.table).processes(caller))
        namespace = stack.enter_context(network_of(process))
        way = Passage(namespace, (raw["ip"], raw["port"]))
        stack.callback(way.close)
        yield Door(way.url, raw["token"])


def _ask(api: httpx.Client, method: str, path: str, body: object = None) -> dict[str, Any]:
    answer = api.request(method, path, json=body if body is not None else {})
    assert answer.status_code < 300, answer.text
    found: dict[str, Any] = answer.json()
    return found


class Passage:
    """A loopback port whose connections begin in another network namespace.

    Bytes and ends are passed on as they come, so both sides see each other and nothing else.
    """

    def __init__(self, namespace: int, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        # Only that thread is there; the sockets it makes belong to that network.
        entered = (namespace, self._accept)
        threading.Thread(target=run_inside, args=entered, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._target, TIMEOUT)
                except OSError:
                    near.close()
                    continue
                threading.Thread(target=_join, args=(near, far), daemon=True).start()


def _join(near: socket.socket, far: socket.socket) -> None:
    """Pour both ways until both have ended."""
    with near, far:
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=_pour, args=(far, near), daemon=True)
        back.start()
        _pour(near, far)
        back.join()


def _pour(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(PIECE):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
