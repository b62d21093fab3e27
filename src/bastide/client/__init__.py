"""The Python client of Bastide.

from bastide.client import Bastide

with Bastide.from_env() as cloud:
    workspace = cloud.workspaces.create("debian-12")
    print(cloud.workspaces.runtime(workspace.id).exec.run("uname -a").stdout)
"""

from bastide.client._archive_calls import Archive, ArchivePage
from bastide.client._async_runtime import AsyncRuntime
from bastide.client._client import AsyncBastide, Bastide
from bastide.client._errors import (
    ApiError,
    ArchiveFailed,
    AuthenticationError,
    BastideError,
    CommandFailed,
    ConfigurationError,
    ConflictError,
    ConnectionBroken,
    ConnectionFailed,
    InvalidValue,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    ProvisioningFailed,
    RateLimitedError,
    ServerError,
    UnavailableError,
    ValidationError,
    WaitTimeout,
)
from bastide.client._events import ExecEvent, Exited, Output, Started
from bastide.client._models import (
    Category,
    Estimate,
    ExecResult,
    FileEntry,
    FileStat,
    FileText,
    Image,
    Lifecycle,
    MachineInfo,
    Operation,
    Provisioning,
    Quota,
    Resized,
    Resources,
    Snapshot,
    Workspace,
    WorkspacePage,
)
from bastide.client._network import BlockedEntry, BlockedLog, Network, PrivateLink
from bastide.client._runtime import Runtime
from bastide.client._ssh import SshConnection, SshKey, SshStatus

__all__ = [
    "ApiError",
    "Archive",
    "ArchiveFailed",
    "ArchivePage",
    "AsyncBastide",
    "AsyncRuntime",
    "AuthenticationError",
    "Bastide",
    "BastideError",
    "BlockedEntry",
    "BlockedLog",
    "Category",
    "CommandFailed",
    "ConfigurationError",
    "ConflictError",
    "ConnectionBroken",
    "ConnectionFailed",
    "Estimate",
    "ExecEvent",
    "ExecResult",
    "Exited",
    "FileEntry",
    "FileStat",
    "FileText",
    "Image",
    "InvalidValue",
    "Lifecycle",
    "MachineInfo",
    "Network",
    "NotFoundError",
    "Operation",
    "Output",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "PrivateLink",
    "Provisioning",
    "ProvisioningFailed",
    "Quota",
    "RateLimitedError",
    "Resized",
    "Resources",
    "Runtime",
    "ServerError",
    "Snapshot",
    "SshConnection",
    "SshKey",
    "SshStatus",
    "Started",
    "UnavailableError",
    "ValidationError",
    "WaitTimeout",
    "Workspace",
    "WorkspacePage",
]
