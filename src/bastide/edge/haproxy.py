"""HAProxy's configuration, and how to start it.

HAProxy runs in the foreground as one process, which suits a supervisor: it ends when it is
told to or breaks, and is started anew. Its configuration never changes while it runs (only the
map does), so there is no reload to be graceful about. When its process ends, the streams that
pass through it end with it; machines and their tasks go on.

It is started as root, reads its files, opens its sockets and becomes `settings.edge_user`.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
from dataclasses import dataclass, field
from importlib.resources import files
from ipaddress import IPv4Network, IPv6Address, ip_address
from pathlib import Path
from string import Template

import structlog

from bastide.domain.machine import RUNTIME_PORT
from bastide.edge.edge import live_map, map_directory
from bastide.edge.maps import read_map, write_private
from bastide.gateway.keys import gateway_key
from bastide.gateway.tokens import AUDIENCE, ISSUER
from bastide.settings import Settings

log = structlog.get_logger(__name__)

PROGRAM = "/usr/sbin/haproxy"

_JSON = "content-type application/json"
_NEW_TOKEN = "Ask the API for a new one: GET /workspace/{id}/runtime-api-access/token."  # noqa: S105
_ANSWERS = {
    "bad_request": (400, "bad_request", "The request is not well-formed HTTP for this server."),
    "unauthorized_missing": (
        401,
        "unauthorized",
        "A gateway token is needed: Authorization: Bearer <token>.",
    ),
    "unauthorized": (401, "unauthorized", f"This is no gateway token of this cloud. {_NEW_TOKEN}"),
    "unauthorized_expired": (
        401,
        "unauthorized",
        f"The gateway token has expired. {_NEW_TOKEN}",
    ),
    "unauthorized_revoked": (
        401,
        "unauthorized",
        f"The gateway token was revoked by a rotation. {_NEW_TOKEN}",
    ),
    "closed": (
        403,
        "forbidden",
        "The workspace's network does not admit the gateway. Set public_access to true.",
    ),
    "disabled": (
        403,
        "disabled",
        "Runtime access is off. Enable it with POST /workspace/{id}/runtime-api-access/enable.",
    ),
    "not_found": (404, "not_found", "There is no such workspace any more."),
    "paused": (
        409,
        "vm_paused",
        "The workspace is paused. Let it go on with POST /workspace/{id}/resume.",
    ),
    "down": (
        503,
        "VM_UNAVAILABLE",
        "The workspace is not running. Start it with POST /workspace/{id}/start.",
    ),
}
_ERRORS = {
    "error_400": (400, "bad_request", "The request is not well-formed HTTP."),
    "error_403": (
        403,
        "forbidden",
        "The request was refused: header names may hold letters, digits and hyphens.",
    ),
    "error_408": (408, "request_timeout", "The request's headers did not arrive in time."),
    "error_500": (500, "server_error", "The edge could not handle the request."),
    "error_502": (502, "bad_gateway", "The answer was broken off or is not HTTP. Try again."),
    "error_503": (
        503,
        "VM_UNAVAILABLE",
        "The workspace does not answer. It may be starting or stopping; try again in a moment.",
    ),
    "error_504": (504, "gateway_timeout", "No answer came in time."),
    "error_api_503": (
        503,
        "unavailable",
        "The API is not running or is restarting. Try again in a moment.",
    ),
}
_REQUEST_ID = "%[var(txn.request_id)]"
_LOG_LINE = (
    '{"time":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]","edge":"%f","client":"%ci",'
    '"request_id":"%[var(txn.request_id),json(utf8s)]","workspace":"%[var(txn.ws),json(utf8s)]",'
    '"method":"%[method,json(utf8s)]","path":"%[var(txn.path),bytes(0,512),json(utf8s)]",'
    '"status":%ST,"bytes":%B,"ms":%Ta,"end":"%ts"}'
)


class EdgeError(Exception):
    """The edge cannot be set up; the message says what to change."""


@dataclass(frozen=True)
class Timeouts:
    """How long HAProxy waits, as HAProxy writes times.

    `server` bounds the silence of an answer, so of an event stream; `client` only that of a
    request's body and of a reader that stops reading. Dead peers are found by TCP keep-alive.
    """

    connect: str = "5s"
    client: str = "1h"
    server: str = "24h"


@dataclass(frozen=True)
class Launch:
    """What the supervisor runs: an argv list and what to add to the environment."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)


class _ConfigTemplate(Template):
    """HAProxy's own language uses `$`, `%` and `{`; ours is `@{name}`."""

    delimiter = "@"


def prepare(settings: Settings) -> Launch:
    """Write what HAProxy reads and say how to run it. To be called before every start.

    Makes `run_dir/edge` (0711) with `haproxy.cfg` and a copy of the control plane's map
    (both 0600), owned by the caller: HAProxy, while it is root, opens no file that another
    user could have put there, and a broken line cannot keep it from starting.

    Raises:
        EdgeError: a setting cannot be used, a user is missing or a file cannot be written.
    """
    directory = live_map(settings).parent
    try:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        directory.chmod(0o711)
        entries, wrong = read_map(map_directory(settings), settings.network.subnet)
        lines = "".join(entry.line() for entry in entries.values())
        write_private(live_map(settings), lines.encode("ascii"))
        config = directory / "haproxy.cfg"
        write_private(config, render(settings, as_root=os.geteuid() == 0).encode())
        key = gateway_key(settings)
    except OSError as error:
        raise EdgeError(f"the edge cannot be set up: {error}") from error
    if wrong:
        log.warning("edge.map.lines_dropped", lines=wrong)
    return Launch((PROGRAM, "-db", "-f", str(config)), {"BASTIDE_GATEWAY_KEY": key})


def render(
    settings: Settings,
    *,
    as_root: bool,
    runtime_port: int = RUNTIME_PORT,
    subnet: IPv4Network | None = None,
    timeouts: Timeouts | None = None,
    descriptors: int = 40_000,
) -> str:
    """The whole configuration.

    Args:
        settings: where to listen, the sockets, the users.
        as_root: HAProxy starts as root and drops to `settings.edge_user`.
        runtime_port: the port of the workspaces' runtime servers.
        subnet: where the addresses of workspaces are (default: the settings').
        timeouts: other than the default ones.
        descriptors: most files and sockets; HAProxy takes two for a client connection.

    Raises:
        EdgeError: a value cannot stand in the configuration, or a user does not exist.
    """
    waits = timeouts or Timeouts()
    values = {
        "identity": _identity(settings) if as_root else "# started without root",
        "stats_owner": f" user {_user(settings.user)}" if as_root else "",
        "stats_socket": _path(settings.edge_socket),
        "api_socket": _path(settings.api_socket),
        "api_listen": _listen("listen.api", settings.listen.api),
        "gateway_listen": _listen("listen.gateway", settings.listen.gateway),
        "map": _path(live_map(settings)),
        "subnet": str(subnet or settings.network.subnet),
        "runtime_port": str(runtime_port),
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "descriptors": str(descriptors),
        "timeout_connect": waits.connect,
        "timeout_client": waits.client,
        "timeout_server": waits.server,
        "log_line": _LOG_LINE,
    }
    values |= {name: f"return status {_answer(*what)}" for name, what in _ANSWERS.items()}
    values |= {name: f"http-error status {_answer(*what)}" for name, what in _ERRORS.items()}
    template = files("bastide.edge").joinpath("haproxy.cfg.template").read_text("utf-8")
    return _ConfigTemplate(template).substitute(values)


def _answer(status: int, code: str, message: str) -> str:
    """An answer in the envelope of the API (spec control-plane §1.2), as HAProxy writes it."""
    body = {
        "success": False,
        "error": code,
        "code": code,
        "message": message,
        "request_id": _REQUEST_ID,
    }
    text = json.dumps(body, separators=(",", ":")).replace("'", "\\u0027")
    headers = " hdr Cache-Control no-store"
    if status == 401:
        headers += " hdr WWW-Authenticate Bearer"
    if status == 503:
        headers += " hdr Retry-After 1"
    return f"{status} {_JSON} lf-string '{text}'{headers}"


def _identity(settings: Settings) -> str:
    name = _user(settings.edge_user)
    group = grp.getgrgid(pwd.getpwnam(name).pw_gid).gr_name
    return f"user {name}\n    group {group}"


def _user(name: str) -> str:
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise EdgeError(f"there is no user {name!r}; run script/up or create it") from None
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", name):
        raise EdgeError(f"the user name {name!r} cannot be used")
    return name


def _path(path: Path) -> str:
    """A path as one word of the configuration; a unix socket's name has at most 107 bytes."""
    text = str(path)
    if not re.fullmatch(r"/[A-Za-z0-9._/+-]+", text) or len(text) > 90:
        raise EdgeError(
            f"{text!r}: paths of the edge must be absolute, at most 90 characters, and hold "
            "only letters, digits and ._/+-"
        )
    return text


def _listen(name: str, value: str) -> str:
    """An `address:port` with a literal address."""
    host, _, port = value.rpartition(":")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:
        raise EdgeError(f"{name} is {value!r}; it must be like 127.0.0.1:7080 or [::1]:7080")
    return f"[{address}]:{number}" if isinstance(address, IPv6Address) else f"{address}:{number}"
