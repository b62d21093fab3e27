"""Who is asking, and how far that reaches (spec control-plane 2).

The rules live here and services ask them: another account's things do not exist (404), things of
one's own account outside the credential's scope are refused (403).
"""

from __future__ import annotations

from dataclasses import dataclass

from bastide.domain.errors import Forbidden, NotFound
from bastide.domain.scope import Scope
from bastide.store.tables import Workspace
from bastide.store.workspaces import Filter


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated credential of `account_id`.

    `credential` is the id of the key or token, for logs. `namespace` is set for scope
    `namespace`, `workspace_id` for scope `workspace`.
    """

    account_id: str
    scope: Scope
    credential: str
    namespace: str | None = None
    workspace_id: str | None = None

    def require_admin(self) -> None:
        """Only an admin credential goes on.

        Raises:
            Forbidden: it is none.
        """
        if self.scope is not Scope.ADMIN:
            raise self._too_narrow("admin")

    def require_workspaces(self) -> None:
        """A credential that has to do with workspaces goes on: all but billing ones.

        Raises:
            Forbidden: it is a billing credential.
        """
        if self.scope is Scope.BILLING:
            raise self._too_narrow("admin, namespace or workspace")

    def namespace_for_new(self, wanted: str | None) -> str | None:
        """The namespace a new workspace goes into: a namespace credential forces its own.

        Raises:
            Forbidden: the credential may not create workspaces.
        """
        if self.scope is Scope.ADMIN:
            return wanted
        if self.scope is Scope.NAMESPACE:
            return self.namespace
        raise self._too_narrow("admin or namespace")

    def visible(self, namespace: str | None = None) -> Filter:
        """What a list may hold, `namespace` being the one asked for (None: all).

        Raises:
            Forbidden: another namespace than the credential's own, or a billing credential.
        """
        self.require_workspaces()
        if self.scope is Scope.NAMESPACE:
            if self.namespace is None or namespace not in {None, self.namespace}:
                raise self._too_narrow("admin")
            return Filter(account_id=self.account_id, namespace=self.namespace)
        ids = (self.workspace_id or "",) if self.scope is Scope.WORKSPACE else None
        return Filter(account_id=self.account_id, namespace=namespace, ids=ids)

    def may_see(self, workspace: Workspace) -> bool:
        """Whether the workspace is within account and scope."""
        if workspace.account_id != self.account_id:
            return False
        match self.scope:
            case Scope.ADMIN:
                return True
            case Scope.NAMESPACE:
                return self.namespace is not None and workspace.namespace == self.namespace
            case Scope.WORKSPACE:
                return workspace.id == self.workspace_id
            case Scope.BILLING:
                return False

    def require(self, workspace: Workspace | None) -> Workspace:
        """The workspace, if this credential reaches it.

        Raises:
            NotFound: there is none, or it is another account's.
            Forbidden: it is outside the scope.
        """
        self.require_workspaces()
        if workspace is None or workspace.account_id != self.account_id:
            raise NotFound("There is no such workspace. Check the id or slug with GET /workspace.")
        if not self.may_see(workspace):
            raise self._too_narrow("admin")
        return workspace

    def _too_narrow(self, required: str) -> Forbidden:
        return Forbidden(
            f"These credentials may not do that (scope: {self.scope}, required: {required}).",
            details={"scope": str(self.scope), "required": required},
        )
