"""How far a credential reaches (spec control-plane 2)."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """`admin`: everything of the account; the others: one namespace, one workspace, billing."""

    ADMIN = "admin"
    NAMESPACE = "namespace"
    WORKSPACE = "workspace"
    BILLING = "billing"
