"""Calls to the node's own socket, for what only the operator of a server may do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import loads
from typing import TYPE_CHECKING, Any, BinaryIO

from bastide.cli.configuration import server_settings
from bastide.cli.fault import Fault, need_root

if TYPE_CHECKING:
    import httpx

_SILENCE = 600.0
_CHUNK = 1024 * 1024
_LEFT = Fault(
    "broken off; it ends on the server, too, unless somebody else waits for it",
    "run it again: layers that were fetched are kept",
    code=130,
)


@contextmanager
def node(doing: str) -> Iterator[httpx.Client]:
    """A client of the node's socket.

    Raises:
        Fault: this is not root, or the node does not run.
    """
    import httpx

    need_root(doing)
    socket = server_settings().node_socket
    transport = httpx.HTTPTransport(uds=str(socket))
    timeout = httpx.Timeout(_SILENCE, connect=5.0)
    with httpx.Client(
        base_url="http://node", transport=transport, trust_env=False, timeout=timeout
    ) as client:
        try:
            yield client
        except httpx.ConnectError:
            raise Fault(f"bastide-node does not answer on {socket}", "bastide up") from None
        except httpx.TransportError as error:
            raise Fault(f"bastide-node broke off: {error}", "bastide status") from None


def answer_of(response: httpx.Response) -> dict[str, Any]:
    """The document of an answer.

    Raises:
        Fault: it is a refusal.
    """
    body: dict[str, Any] = response.json()
    if response.is_error:
        raise Fault(str(body.get("message", response.status_code)))
    return body


def follow(
    client: httpx.Client,
    path: str,
    body: dict[str, Any] | None = None,
    file: BinaryIO | None = None,
    *,
    json: bool = False,
) -> dict[str, Any]:
    """Ask for an image, telling how far it is unless `json`; what is known of it in the end.

    Raises:
        Fault: it cannot be had.
    """
    from bastide.cli.progress import progress

    content = None if file is None else iter(lambda: file.read(_CHUNK), b"")
    last = ""
    with (
        progress(json=json, left=_LEFT) as tell,
        client.stream("POST", path, json=body, content=content) as response,
    ):
        if response.is_error:
            response.read()
            answer_of(response)
        for line in response.iter_lines():
            said = loads(line)
            if "image" in said:
                found: dict[str, Any] = said["image"]
                return found
            if "error" in said:
                raise Fault(said["message"])
            if said["message"] != last:
                last = said["message"]
                tell(last)
    raise Fault("bastide-node broke off", "bastide status")
