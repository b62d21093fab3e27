"""A workspace that was asked for and does not exist yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bastide.domain.config import Config
from bastide.domain.creation import CreateWorkspace
from bastide.domain.lifecycle import DesiredState, Mode
from bastide.domain.machine import ImageInfo
from bastide.domain.restart import RestartPolicy
from bastide.domain.ssh import SshConfig, new_ssh_id
from bastide.services.allowance import Sizes
from bastide.services.gateway import new_raw_token
from bastide.store.tables import Workspace

_DEFAULT_CONFIG = {
    "restart_policy": RestartPolicy.ALWAYS.value,
    "max_restarts": 0,
    "static_network": True,
}


# Credentials may be renewed between two tries of the same request.
_NO_MATTER = {"idempotency_key", "wait_ready", "namespace", "image_auth"}


@dataclass(frozen=True, slots=True)
class Draft:
    """The checked body, and the account and namespace it is for."""

    body: CreateWorkspace
    account_id: str
    namespace: str | None

    @property
    def config(self) -> Config:
        """The wanted configuration."""
        return self.body.config or Config()

    def _ssh(self) -> dict[str, Any]:
        """The columns of SSH: enabled at once, if that was asked for."""
        if not self.config.ssh_access:
            return {}
        enabled = SshConfig.make(enabled=True)
        return {"ssh_id": new_ssh_id(), "ssh": enabled.model_dump(mode="json")}

    @property
    def digest(self) -> str:
        """What makes two requests the same: everything but the key and the waiting."""
        content = self.body.model_dump(mode="json", exclude=_NO_MATTER, exclude_none=True)
        text = json.dumps({**content, "namespace": self.namespace}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def row(
        self, name: str, slug: str, image: ImageInfo, sizes: Sizes, network: Mapping[str, Any]
    ) -> Workspace:
        """The row to insert; `network` is the content of that column."""
        lease = self.body.lease
        config = {**_DEFAULT_CONFIG, **self.config.given()}
        if lease is not None:
            config["restart_policy"] = RestartPolicy.NO.value
        return Workspace(
            account_id=self.account_id,
            namespace=self.namespace,
            slug=slug,
            name=name,
            logo=self.body.logo,
            image=image.id,
            image_auth=self.body.image_auth.model_dump() if self.body.image_auth else None,
            mode=Mode.PERMANENT if lease is None else Mode.TEMPORARY,
            config=config,
            ttl=None if lease is None else lease.ttl,
            ttl_action=None if lease is None else lease.action,
            remove_on_exit=lease is not None and lease.remove_on_exit,
            cpus=sizes.cpus,
            memory_mb=sizes.memory_mb,
            disk_mb=sizes.disk_mb,
            desired_state=DesiredState.RUNNING,
            network=dict(network),
            raw_token=new_raw_token(),
            **self._ssh(),
            idempotency_key=self.body.idempotency_key,
        )
