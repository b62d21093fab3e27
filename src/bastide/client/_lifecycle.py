"""Lifecycle, leases, sizes, quota and prices of workspaces."""

from __future__ import annotations

from typing import Any

from bastide.client import _lifecycle_calls as calls
from bastide.client import _workspace_calls
from bastide.client._models import (
    Estimate,
    Lifecycle,
    Quota,
    Resized,
    Resources,
    Snapshot,
    Workspace,
    WorkspacePage,
)
from bastide.client._session import Session


class Lifecycles:
    """The part of `Workspaces` about how workspaces live. Each is named by id or slug."""

    _api: Session

    def pause(self, workspace: str) -> None:
        """Freeze every process; memory and connections are kept."""
        self._api.send(_workspace_calls.power(workspace, "pause"))

    def resume(self, workspace: str) -> None:
        """Let a paused workspace go on."""
        self._api.send(_workspace_calls.power(workspace, "resume"))

    def snapshot(self, workspace: str, *, after: str | None = None) -> Snapshot:
        """Capture memory and disk, in the place of the last snapshot.

        `after`: `resume` (usual), `paused` or `stop`, what the workspace is then.
        """
        return self._api.send(calls.snapshot(workspace, after))

    def restore(self, workspace: str) -> Snapshot:
        """Go back to the last snapshot: processes, memory, open files and disk."""
        return self._api.send(calls.restore(workspace))

    def destroy(self, workspace: str) -> None:
        """Remove machine and disk for good and keep the record; a start begins anew."""
        self._api.send(calls.destroy(workspace))

    def reinstall(self, workspace: str) -> None:
        """Begin anew from the image: every file is lost, the record and its snapshot stay."""
        self._api.send(calls.reinstall(workspace))

    def make_permanent(self, workspace: str, *, restart_policy: str | None = None) -> Lifecycle:
        """End its lease; `restart_policy` is `always` unless given."""
        return self._api.send(calls.make_permanent(workspace, restart_policy))

    def make_temporary(
        self,
        workspace: str,
        ttl: str | int,
        *,
        ttl_action: str | None = None,
        remove_on_exit: bool | None = None,
    ) -> Lifecycle:
        """Give it a lease from now: a duration such as `1h`, or seconds.

        `ttl_action` at its end: `stop` (usual), `pause` or `remove`.
        """
        return self._api.send(
            calls.make_temporary(workspace, ttl, ttl_action, remove_on_exit=remove_on_exit)
        )

    def update_ttl(
        self, workspace: str, ttl: str | int | None = None, *, ttl_action: str | None = None
    ) -> Lifecycle:
        """Another length of its lease, from now, or another action at its end."""
        return self._api.send(calls.update_ttl(workspace, ttl, ttl_action))

    def ping(self, workspace: str, *, ttl_seconds: int | None = None) -> calls.Renewal:
        """Renew its lease from now, for its ttl or for the seconds given."""
        return self._api.send(calls.ping(workspace, ttl_seconds))

    def resources(self, workspace: str) -> Resources:
        """Its sizes."""
        return self._api.send(calls.resources(workspace))

    def resize(
        self,
        workspace: str,
        *,
        cpus: float | None = None,
        memory_mb: int | None = None,
        disk_size_mb: int | None = None,
        apply: bool = True,
    ) -> Resized:
        """Other sizes: now, or with `apply` false from the next start. A disk only grows."""
        return self._api.send(calls.resize(workspace, cpus, memory_mb, disk_size_mb, apply=apply))

    def archived(self, page: int | None = None, limit: int | None = None) -> WorkspacePage:
        """Those whose machine is gone for good, newest first."""
        return self._api.send(calls.archived(page, limit))

    def details(self, workspace: str) -> dict[str, Any]:
        """Workspace, token, use, access and lifecycle in one answer."""
        return self._api.send(calls.details(workspace))

    def retry(self, workspace: str) -> Workspace:
        """Try a creation that failed again, with the same id; `wait_ready` waits for its end."""
        return self._api.send(calls.retry(workspace))

    def quota(self) -> Quota:
        """Limits and use of the account."""
        return self._api.send(calls.quota())

    def estimate(
        self,
        *,
        cpus: float | None = None,
        memory_mb: float | None = None,
        disk_size_mb: float | None = None,
    ) -> Estimate:
        """Credits a month of a workspace that always runs."""
        return self._api.send(calls.estimate(cpus, memory_mb, disk_size_mb))
