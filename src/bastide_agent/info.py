"""Health, description and discovery of this runtime (spec runtime 11 and 13)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bastide_agent.http.message import Request, Response, ok, plain
from bastide_agent.shell import default_shell

if TYPE_CHECKING:
    from bastide_agent.http.router import Router
    from bastide_agent.runtime import Runtime

PROTOCOL_VERSION = 1
CAPABILITIES = ("files", "exec", "search", "terminals", "ws", "watchers", "transfer", "proxy")


def register(router: Router, runtime: Runtime) -> None:
    """Serve `/health`, `/runtime`, `/runtimes` and `/desktop/status`."""

    def describe() -> dict[str, object]:
        return {
            "os": "linux",
            "arch": os.uname().machine,
            "cpus": len(os.sched_getaffinity(0)),
            "home": runtime.places.env.get("HOME", "/root"),
            "shell": default_shell(runtime.places.env.get("SHELL", "")),
            "protocol_version": PROTOCOL_VERSION,
            "capabilities": list(CAPABILITIES),
        }

    async def health(request: Request) -> Response:
        del request
        return plain({"status": "ok"})

    async def info(request: Request) -> Response:
        del request
        return plain(describe())

    async def targets(request: Request) -> Response:
        del request
        target = {
            "id": "default",
            "local": True,
            "available": True,
            "version": PROTOCOL_VERSION,
            "capabilities": list(CAPABILITIES),
            "runtime": describe(),
        }
        return plain(
            {
                "version": PROTOCOL_VERSION,
                "capabilities": list(CAPABILITIES),
                "default_target": "default",
                "aliases": {"local": "default"},
                "targets": [target],
            }
        )

    async def desktop(request: Request) -> Response:
        del request
        return ok({"supported": False, "enabled": False, "available": False, "credentials": False})

    router.add("GET", "/health", health)
    router.add("GET", "/runtime", info)
    router.add("GET", "/runtimes", targets)
    router.add("GET", "/desktop/status", desktop)
