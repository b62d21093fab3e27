"""Which statuses a workspace shows while something is done with it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from bastide.client import Bastide, BastideError

EVERY = 0.03
DEADLINE = 180.0
MEANWHILE = {
    "start": {"starting"},
    "restart": {"starting"},
    "restore": {"starting"},
    "stop": {"stopping"},
}
"""Shown during an operation beside what it was before and is afterwards; the others take moments,
or boot anew without a word (`resize`)."""


@contextmanager
def showing(client: Bastide, workspace: str, allowed: set[str]) -> Iterator[Counter[str]]:
    """Ask for the status again and again meanwhile; fails when it shows any but these.

    That nobody answers is allowed: a process may have been killed.
    """
    seen: Counter[str] = Counter()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            with suppress(BastideError):
                seen[client.workspaces.get(workspace).status] += 1
            over.wait(EVERY)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield seen
        finally:
            over.set()
        looking.result(DEADLINE)
    assert set(seen) <= allowed, f"shown: {dict(seen)}, allowed: {sorted(allowed)}"
