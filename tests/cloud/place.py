"""A place for one more cloud on this host: a number whose subnet and host ids nobody uses."""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

PLACES = 30
IDS = 70_000_000


def subnet(number: int) -> IPv4Network:
    """The subnet of a place."""
    return IPv4Network(f"10.{150 + number}.0.0/16")


def id_base(number: int) -> int:
    """The first host id of a place; `IDS` belong to it."""
    return 2_000_000_000 + number * IDS


def routes() -> list[IPv4Network]:
    """Every destination this host has a route to, in any table, but for the default."""
    shown = subprocess.run(
        ["ip", "-4", "-json", "route", "show", "table", "all"],
        check=True,
        capture_output=True,
        timeout=30,
    ).stdout
    found = (str(route.get("dst", "default")) for route in json.loads(shown or "[]"))
    return [IPv4Network(one, strict=False) for one in found if one != "default"]


@contextmanager
def free_place(directory: Path, known: Callable[[], list[IPv4Network]] = routes) -> Iterator[int]:
    """Hold a place that no cloud has: none that runs, and none that was left behind.

    A lock file in `directory` keeps it as long as the block runs, also while no route shows it.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    for number in range(PLACES):
        with (directory / f"{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if any(one.subnet_of(subnet(number)) for one in known()):
                continue
            yield number
            return
    raise RuntimeError(f"all {PLACES} places for a cloud of the tests are taken on this host")
