"""Which loopback port a request is for, and what it looks like from there (spec runtime 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bastide_agent.http.errors import ApiError, invalid
from bastide_agent.http.fields import percent_decode

if TYPE_CHECKING:
    from bastide_agent.http.message import Headers, Request

HEADER = "x-oblien-proxy-target"
PARAMETER = "x_oblien_target"
RESERVED = (b"token", PARAMETER.encode())  # query names that never reach the app
PREFIX = b"/proxy"
# Headers of one hop (RFC 9110 section 7.6.1), and the credential and target of this one.
HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
     b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)  # fmt: skip
OURS = frozenset((b"authorization", HEADER.encode(), b"host", b"expect"))


class Target(NamedTuple):
    """Where to connect, and the request target to send there."""

    host: str
    port: int
    name: str  # the Host header
    path: bytes


def find_target(request: Request) -> Target:
    """The port a request is for: header, else query, else the first part of the path.

    Raises:
        ApiError: 400 when it names none, 403 when it names another host than this one.
    """
    path = request.raw_path.removeprefix(PREFIX)
    given = request.header(HEADER)
    where = HEADER
    if given is None and PARAMETER in request.query:
        where, given = PARAMETER, request.query.text(PARAMETER)
    if given is None:
        where = "port"
        first, slash, rest = path.removeprefix(b"/").partition(b"/")
        given, path = first.decode("latin-1"), slash + rest
    if not given.strip():
        message = f"name a port: header {HEADER}, ?{PARAMETER}= or /proxy/<port>/<path>"
        raise invalid(HEADER, message)
    host, port, name = parse(given.strip(), where)
    query = own_query(request.raw_query)
    return Target(host, port, name, (path or b"/") + (b"?" + query if query else b""))


def parse(given: str, where: str) -> tuple[str, int, str]:
    """`3000`, `127.0.0.1:3000`, `localhost:3000` or `[::1]:3000` as host, port and Host header.

    An address is taken only in its plain spelling, so no other one can slip through.

    Raises:
        ApiError: 400 for a bad port, 403 for anything that is not plainly loopback.
    """
    named, colon, digits = given.rpartition(":")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 5:
        raise invalid(where, f"{where} must be a port or host:port with a port from 1 to 65535")
    port = int(digits)
    if not 1 <= port <= 65535:
        raise invalid(where, f"{where} must have a port from 1 to 65535")
    host = named.lower()
    if not colon or host == "localhost":
        return "127.0.0.1", port, f"localhost:{port}"
    if host in ("::1", "[::1]"):
        return "::1", port, f"[::1]:{port}"
    if is_loopback(host):
        return host, port, f"{host}:{port}"
    message = "only ports of this workspace's loopback (127.0.0.1, localhost, ::1) can be proxied"
    raise ApiError(403, "forbidden", message, {"field": where})


def is_loopback(host: str) -> bool:
    """Whether this is `127.x.y.z`, four decimal numbers without leading zeros."""
    parts = host.split(".")
    if len(parts) != 4 or parts[0] != "127":
        return False
    return all(
        part.isascii() and part.isdigit() and len(part) <= 3 and str(int(part)) == part
        and int(part) <= 255
        for part in parts
    )  # fmt: skip


def own_query(raw: bytes) -> bytes:
    """A query string without the names that belong to the runtime, the rest untouched."""
    kept = [
        pair
        for pair in raw.split(b"&")
        if percent_decode(pair.partition(b"=")[0].replace(b"+", b" ")) not in RESERVED
    ]
    return b"&".join(kept)


def end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Headers without those that are meant for one hop only."""
    named = {
        part.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for part in value.split(b",")
    }
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in HOP and name.lower() not in named
    ]


def is_upgrade(request: Request) -> bool:
    """Whether the client asks to leave HTTP."""
    wanted = (request.header("connection") or "").lower()
    return request.header("upgrade") is not None and "upgrade" in (
        part.strip() for part in wanted.split(",")
    )


def app_headers(request: Request, target: Target) -> list[tuple[bytes, bytes]]:
    """The headers the app sees: its own host, nothing of the runtime's credential."""
    headers = [(b"Host", target.name.encode("ascii"))]
    headers += [pair for pair in end_to_end(request.headers) if pair[0] not in OURS]
    if is_upgrade(request):
        upgrade = request.header("upgrade") or ""
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade.encode("latin-1"))]
        return headers
    has_length = any(name == b"content-length" for name, _ in request.headers)
    if not has_length and any(name == b"transfer-encoding" for name, _ in request.headers):
        headers.append((b"Transfer-Encoding", b"chunked"))
    headers.append((b"Connection", b"close"))
    return headers
