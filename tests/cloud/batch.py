"""Many workspaces at once: made, settled, used and deleted, whatever happens meanwhile."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from bastide.client import (
    Bastide,
    ConnectionFailed,
    ExecResult,
    NotFoundError,
    UnavailableError,
    Workspace,
)

DEADLINE = 120.0
T = TypeVar("T")


class Batch:
    """Workspaces that belong together. `keys` are their idempotency keys."""

    def __init__(self, client: Bastide, count: int, **wanted: object) -> None:
        self._client = client
        self._wanted = {"memory_mb": 128, "disk_size_mb": 64} | wanted
        self.keys = [uuid.uuid4().hex for _ in range(count)]
        self.ids: list[str] = []

    def create(self, after: Callable[[], object] = lambda: None, accepted: int = 3) -> None:
        """Ask for all at once; call `after` when `accepted` of them are known."""
        with ThreadPoolExecutor(len(self.keys)) as pool:
            asked = [pool.submit(self._create, key) for key in self.keys]
            end = time.monotonic() + DEADLINE
            while sum(one.done() for one in asked) < accepted:
                assert time.monotonic() < end
                time.sleep(0.005)
            after()
            self.ids = [one.result() for one in asked]
        assert len(set(self.ids)) == len(self.keys)

    def _create(self, key: str) -> str:
        return patiently(
            lambda: self._client.workspaces.create(
                "debian-12",
                idempotency_key=key,
                wait=False,
                **self._wanted,  # type: ignore[arg-type]
            )
        ).id

    def settled(self) -> dict[str, Workspace]:
        """Each, once its creation has come to an end: ready or failed."""
        found = {}
        end = time.monotonic() + DEADLINE
        for workspace in self.ids:
            while True:
                now = patiently(partial(self._client.workspaces.get, workspace))
                if now.state in {"ready", "failed"}:
                    break
                assert time.monotonic() < end, f"{workspace} is still {now.state}"
                time.sleep(0.05)
            found[workspace] = now
        return found

    def retry(self, workspace: str) -> None:
        """Ask for a failed creation to be tried again."""
        self._client.workspaces.retry(workspace)

    def exec(self, command: str) -> list[ExecResult]:
        """Run a command in all of them at once."""
        with ThreadPoolExecutor(8) as pool:
            return list(
                pool.map(
                    lambda one: self._client.workspaces.runtime(one).exec.run(command), self.ids
                )
            )

    def delete(self) -> None:
        """Delete all at once, and wait until they are gone."""
        with ThreadPoolExecutor(max(1, len(self.ids))) as pool:
            list(pool.map(self._delete, self.ids))
        for workspace in self.ids:
            gone(self._client, workspace)

    def _delete(self, workspace: str) -> None:
        try:
            patiently(lambda: self._client.workspaces.delete(workspace))
        except NotFoundError:
            return


def gone(client: Bastide, workspace: str) -> None:
    """Wait until it is."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            now = patiently(lambda: client.workspaces.get(workspace))
        except NotFoundError:
            return
        assert time.monotonic() < end, f"{workspace} is stuck: {now.provisioning}"
        time.sleep(0.05)


def patiently(call: Callable[[], T]) -> T:
    """What a call gives, asked again while nobody answers."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return call()
        except (ConnectionFailed, UnavailableError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def codes(results: Iterable[ExecResult]) -> set[int | None]:
    """The different exit codes."""
    return {result.exit_code for result in results}
