"""A whole cloud for the tests: made through the real command line, beside any other on the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.cache import own_cache
from tests.cloud.place import free_place, id_base, subnet
from tests.host.leaks import traces
from tests.host.network.stage import POOLED
from tests.ports import free_address

from bastide.client import Bastide
from bastide.settings import Images, Listen, Machines, Network, Settings

BASTIDE = Path(sys.executable).with_name("bastide")
RUNNING = "BASTIDE_TEST_RUNNING"
"""Set to 1: use the cloud that runs on this host, named by BASTIDE_* or by its own settings."""
DEADLINE = 300.0


@dataclass(frozen=True)
class Cloud:
    """A running cloud: its settings, and the environment that makes clients and CLI use it."""

    settings: Settings
    server: dict[str, str]
    environment: dict[str, str]

    def run(
        self, *args: str, text: str | None = None, check: bool = True, timeout: float = DEADLINE
    ) -> subprocess.CompletedProcess[str]:
        """Run `bastide ARGS` to its end, `text` on its standard input."""
        done = subprocess.run(
            [str(BASTIDE), *args],
            env=clean_environment() | self.server | self.environment,
            input=text or "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            logs = "\n".join(tails(self.settings.state_dir / "log"))
            raise AssertionError(f"bastide {args}: {done.returncode}\n{done.stderr}\n{logs}")
        return done

    def json(self, *args: str) -> Any:
        """What `bastide ARGS --json` prints."""
        return json.loads(self.run(*args, "--json").stdout)

    @property
    def disks(self) -> Path:
        """Where the disks of new workspaces lie: in the pool, if there is one."""
        pool = self.settings.state_dir / "pool"
        return (pool if pool.is_mount() else self.settings.state_dir) / "disks"

    def client(self) -> Bastide:
        """A client with the first admin key, to be closed."""
        return Bastide(
            api_url=self.environment["BASTIDE_API_URL"],
            gateway_url=self.environment["BASTIDE_GATEWAY_URL"],
            client_id=self.environment["BASTIDE_CLIENT_ID"],
            client_secret=self.environment["BASTIDE_CLIENT_SECRET"],
        )


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that names a cloud."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BASTIDE_", "OBLIEN_"))
    }


def tails(directory: Path) -> Iterator[str]:
    """The end of each log, for a failure's message."""
    for log in sorted(directory.glob("*.log")):
        yield f"--- {log.name}"
        yield from log.read_text(errors="replace").splitlines()[-20:]


@contextmanager
def running_cloud() -> Iterator[Cloud]:
    """The cloud of this host, left as it was."""
    server = {name: value for name, value in os.environ.items() if name.startswith("BASTIDE_")}
    cloud = Cloud(Settings(), server, {})
    yield Cloud(cloud.settings, server, cloud.json("env"))


@contextmanager
def own_cloud(**more: str) -> Iterator[Cloud]:
    """A cloud of its own, taken down afterwards; nothing of it may be left.

    `more` are variables of its settings beside those that keep it apart from others.
    """
    cache = own_cache()
    with (
        free_place(cache / "places") as place,
        tempfile.TemporaryDirectory(prefix="bastide-cloud-", dir="/var/tmp") as base,
    ):
        Path(base).chmod(0o755)
        settings = own_settings(Path(base), place)
        server = variables(settings) | more
        settings.state_dir.mkdir()
        share_prepared(cache, settings.state_dir)
        cloud = Cloud(settings, server, {})
        try:
            cloud.run("prepare", timeout=1200)
            cloud.run("up", "--detach")
            yield Cloud(settings, server, cloud.json("env"))
        finally:
            before = traces(settings)
            cloud.run("down", "--purge", "--yes")
            left = remaining(settings)
            assert not left, f"left on the host: {left}; before: {before}"
            assert not settings.state_dir.exists()
            assert not settings.run_dir.exists()


def share_prepared(source: Path, state: Path) -> None:
    """Let a cloud that has `state` use what was prepared for others."""
    for name in ("runtime", "bundle", "images"):
        (source / name).mkdir(exist_ok=True)
        (state / name).symlink_to(source / name)


def remaining(settings: Settings) -> dict[str, set[str]]:
    """What of a cloud that is down is on the host, and does not go within a few seconds.

    Processes whose parent has just ended are dead until the host's process 1 takes note of it.
    """
    end = time.monotonic() + 10
    while True:
        listed = traces(settings) | {"network": network_of(settings)}
        left = {kind: found for kind, found in listed.items() if found}
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)


def network_of(settings: Settings) -> set[str]:
    """A cloud's table in the firewall, and the routes of its subnet."""
    tables, routes = (
        subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        for argv in (["nft", "list", "tables"], ["ip", "route", "show", "table", "all"])
    )
    prefix = str(settings.network.subnet.network_address).removesuffix("0.0")
    return {line for line in tables if line.split()[-1] == settings.network.table} | {
        line for line in routes if any(word.startswith(prefix) for word in line.split())
    }


def own_settings(base: Path, place: int) -> Settings:
    """Settings that share nothing with another cloud: directories, ports, network, ids."""
    return Settings(
        state_dir=base / "state",
        run_dir=base / "run",
        listen=Listen(api=free_address(), gateway=free_address(), ssh=free_address()),
        network=Network(
            subnet=subnet(place),
            table=f"bastide_test{os.getpid()}",
            nameservers=(f"127.53.0.{place + 1}",),  # the tests' own, where there is one
            outbound_pool=(IPv4Address(POOLED),),
        ),
        machines=Machines(id_base=id_base(place)),
        # a registry that the tests start; no other is ever asked
        images=Images(registries=(), insecure_registries=(free_address(),)),
    )


def variables(settings: Settings) -> dict[str, str]:
    """The settings as the environment that gives them."""
    return {
        "BASTIDE_CONFIG": "/nonexistent",
        "BASTIDE_STATE_DIR": str(settings.state_dir),
        "BASTIDE_RUN_DIR": str(settings.run_dir),
        "BASTIDE_LISTEN__API": settings.listen.api,
        "BASTIDE_LISTEN__GATEWAY": settings.listen.gateway,
        "BASTIDE_LISTEN__SSH": settings.listen.ssh,
        "BASTIDE_NETWORK__SUBNET": str(settings.network.subnet),
        "BASTIDE_NETWORK__TABLE": settings.network.table,
        "BASTIDE_NETWORK__NAMESERVERS": json.dumps(settings.network.nameservers),
        "BASTIDE_NETWORK__OUTBOUND_POOL": json.dumps(
            list(map(str, settings.network.outbound_pool))
        ),
        "BASTIDE_MACHINES__ID_BASE": str(settings.machines.id_base),
        "BASTIDE_IMAGES__REGISTRIES": "[]",
        "BASTIDE_IMAGES__INSECURE_REGISTRIES": json.dumps(settings.images.insecure_registries),
    }
