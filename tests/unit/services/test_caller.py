"""How far each scope reaches: the whole matrix (spec control-plane 2)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bastide.domain.errors import Forbidden, NotFound
from bastide.domain.scope import Scope
from bastide.services.caller import Caller
from bastide.store.tables import Workspace
from bastide.store.workspaces import Filter

ADMIN = Caller("acc_1", Scope.ADMIN, "key_admin")
SHOP = Caller("acc_1", Scope.NAMESPACE, "key_shop", namespace="shop")
LONE = Caller("acc_1", Scope.WORKSPACE, "key_lone", workspace_id="ws_shop")
BILLING = Caller("acc_1", Scope.BILLING, "key_billing")
STRANGER = Caller("acc_2", Scope.ADMIN, "key_stranger")
STRANGE_SHOP = Caller("acc_2", Scope.NAMESPACE, "key_strange", namespace="shop")

IN_SHOP = Workspace(id="ws_shop", account_id="acc_1", namespace="shop")
IN_LAB = Workspace(id="ws_lab", account_id="acc_1", namespace="lab")
PERSONAL = Workspace(id="ws_mine", account_id="acc_1", namespace=None)

REACH = [
    (ADMIN, IN_SHOP, None),
    (ADMIN, IN_LAB, None),
    (ADMIN, PERSONAL, None),
    (SHOP, IN_SHOP, None),
    (SHOP, IN_LAB, Forbidden),
    (SHOP, PERSONAL, Forbidden),
    (LONE, IN_SHOP, None),
    (LONE, IN_LAB, Forbidden),
    (LONE, PERSONAL, Forbidden),
    (BILLING, IN_SHOP, Forbidden),
    (BILLING, PERSONAL, Forbidden),
    (STRANGER, IN_SHOP, NotFound),
    (STRANGER, PERSONAL, NotFound),
    (STRANGE_SHOP, IN_SHOP, NotFound),
    (ADMIN, None, NotFound),
    (SHOP, None, NotFound),
    (LONE, None, NotFound),
    (BILLING, None, Forbidden),
]


@pytest.mark.parametrize(("caller", "workspace", "refusal"), REACH)
def test_reach(
    caller: Caller, workspace: Workspace | None, refusal: type[Exception] | None
) -> None:
    """Each credential reaches exactly what its scope says; other accounts see nothing at all."""
    if refusal is None:
        assert workspace is not None
        assert caller.require(workspace) is workspace
        assert caller.may_see(workspace)
        return
    with pytest.raises(refusal):
        caller.require(workspace)
    assert workspace is None or not caller.may_see(workspace)


def test_a_namespace_credential_without_namespace_reaches_nothing() -> None:
    """A broken row does not turn into access to personal workspaces."""
    broken = Caller("acc_1", Scope.NAMESPACE, "key_broken")
    assert not broken.may_see(PERSONAL)
    with pytest.raises(Forbidden):
        broken.visible()


def test_lists_are_narrowed() -> None:
    """A list holds what the scope covers, and no query widens it."""
    assert ADMIN.visible() == Filter(account_id="acc_1")
    assert ADMIN.visible("lab") == Filter(account_id="acc_1", namespace="lab")
    assert SHOP.visible() == Filter(account_id="acc_1", namespace="shop")
    assert SHOP.visible("shop") == SHOP.visible()
    assert LONE.visible() == Filter(account_id="acc_1", ids=("ws_shop",))
    assert LONE.visible("lab") == Filter(account_id="acc_1", namespace="lab", ids=("ws_shop",))
    for caller, namespace in ((SHOP, "lab"), (BILLING, None)):
        with pytest.raises(Forbidden):
            caller.visible(namespace)


def test_new_workspaces_go_where_the_credential_belongs() -> None:
    """A namespace credential forces its own namespace; the narrower ones create nothing."""
    assert ADMIN.namespace_for_new(None) is None
    assert ADMIN.namespace_for_new("lab") == "lab"
    assert SHOP.namespace_for_new(None) == "shop"
    assert SHOP.namespace_for_new("lab") == "shop"
    for caller in (LONE, BILLING):
        with pytest.raises(Forbidden):
            caller.namespace_for_new(None)


@pytest.mark.parametrize(
    ("check", "allowed"),
    [
        (Caller.require_admin, {ADMIN}),
        (Caller.require_workspaces, {ADMIN, SHOP, LONE}),
    ],
)
def test_kinds_of_credentials(check: Callable[[Caller], None], allowed: set[Caller]) -> None:
    """Each area lets in exactly the scopes it is for."""
    for caller in (ADMIN, SHOP, LONE, BILLING):
        if caller in allowed:
            check(caller)
        else:
            with pytest.raises(Forbidden):
                check(caller)


def test_the_refusal_names_both_scopes() -> None:
    """Clients look for this wording."""
    with pytest.raises(Forbidden, match="scope: namespace, required: admin") as caught:
        SHOP.require_admin()
    assert caught.value.details == {"scope": "namespace", "required": "admin"}
