"""The network of a workspace (spec 4.4)."""

from __future__ import annotations

from bastide.domain.config import Config, NetworkConfig
from bastide.domain.creation import UpdateWorkspace
from bastide.services.caller import Caller
from bastide.services.views import WorkspaceView
from bastide.services.workspaces import WorkspaceService


class NetworkService:
    """Reads and changes the policy."""

    def __init__(self, workspaces: WorkspaceService) -> None:
        self._workspaces = workspaces

    async def get(self, caller: Caller, reference: str) -> WorkspaceView:
        """The workspace whose network is shown."""
        return await self._workspaces.get(caller, reference)

    async def change(self, caller: Caller, reference: str, body: NetworkConfig) -> WorkspaceView:
        """Change what was given, hot.

        Raises:
            VmUnavailable: stored, and put in force as soon as the machine can be reached.
        """
        update = UpdateWorkspace(config=Config(network_config=body))
        return await self._workspaces.update(caller, reference, update)
