"""A scripted server for the client's tests: answers in order, remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from bastide.client import AsyncBastide, Bastide

Answer = httpx.Response | BaseException
KEYS = {
    "api_url": "http://api.test/",
    "gateway_url": "http://gateway.test",
    "client_id": "bastide_id",
    "client_secret": "sk_secret",
}


class Server:
    """Answers each request by the first rule whose method and path fit and that has answers."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self._rules: list[tuple[str, str, list[Answer]]] = []

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """The answers to one path, in order; the last is repeated."""
        self._rules.append((method, path, list(answers)))

    def handle(self, request: httpx.Request) -> httpx.Response:
        """What the transport asks."""
        self.requests.append(request)
        for method, path, answers in self._rules:
            if (request.method, request.url.path) == (method, path):
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if isinstance(answer, BaseException):
                    raise answer
                return answer
        return error(404, "not_found")

    def paths(self) -> list[str]:
        """Method and path of each request, in order."""
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def client(self) -> Bastide:
        """A client of this server that does not wait between tries."""
        client = Bastide(**KEYS, transport=httpx.MockTransport(self.handle))  # type: ignore[arg-type]
        without_waiting(client, lambda _: None)
        return client

    def async_client(self) -> AsyncBastide:
        """The same for asyncio."""
        client = AsyncBastide(**KEYS, transport=httpx.MockTransport(self.handle))  # type: ignore[arg-type]

        async def sleep(_: float) -> None:
            return None

        without_waiting(client, sleep)
        return client


def without_waiting(client: Any, sleep: Callable[[float], Any]) -> None:
    """Replace every wait of a client."""
    client._api._sleep = sleep
    client._gateway._sleep = sleep
    client.workspaces._sleep = sleep
    client.workspaces.archives._sleep = sleep


def good(**body: Any) -> httpx.Response:
    """A success."""
    return httpx.Response(200, json={"success": True, **body})


def error(status: int, code: str, message: str = "no", **extra: Any) -> httpx.Response:
    """A refusal."""
    body = {"success": False, "error": code, "code": code, "message": message, **extra}
    return httpx.Response(status, json=body)


def body_of(request: httpx.Request) -> Any:
    """The JSON a request carried."""
    return json.loads(request.content)


def workspace(
    state: str = "ready", *, ready: bool = True, phase: str | None = None
) -> httpx.Response:
    """A workspace in some state of its provisioning."""
    return good(
        workspace={
            "id": "ws_1",
            "name": "one",
            "ready": ready,
            "status": "running",
            "provisioning": {"state": state, "phase": phase or state},
            "something_new": 7,
        }
    )


def sse(*frames: tuple[str, Any]) -> httpx.Response:
    """A stream of server-sent events."""
    text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in frames)
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)
