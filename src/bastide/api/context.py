"""What a request handler can reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from bastide.services.accounts import AccountService
from bastide.services.archives import ArchiveService
from bastide.services.catalogue import Catalogue
from bastide.services.details import DetailService
from bastide.services.keys import KeyService
from bastide.services.leases import LeaseService
from bastide.services.lifecycle import LifecycleService
from bastide.services.network import NetworkService
from bastide.services.power import PowerService
from bastide.services.quota import QuotaService
from bastide.services.resources import ResourceService
from bastide.services.runtime_access import RuntimeAccessService
from bastide.services.snapshots import SnapshotService
from bastide.services.ssh import SshService
from bastide.services.tokens import TokenService
from bastide.services.workspaces import WorkspaceService
from bastide.settings import Settings
from bastide.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that is built once per process, at start (`bastide.api.assembly`)."""

    settings: Settings
    database: Database
    metrics: CollectorRegistry
    accounts: AccountService
    keys: KeyService
    tokens: TokenService
    catalogue: Catalogue
    workspaces: WorkspaceService
    power: PowerService
    network: NetworkService
    lifecycle: LifecycleService
    leases: LeaseService
    resources: ResourceService
    quota: QuotaService
    details: DetailService
    runtime_access: RuntimeAccessService
    snapshots: SnapshotService
    archives: ArchiveService
    ssh: SshService


async def services_of(request: Request) -> Services:
    """The services of the application that answers this request.

    Asynchronous, as it would be sent to a thread otherwise.
    """
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(services_of)]
