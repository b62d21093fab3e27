"""SSH into a workspace (spec 4.5). Several keys, each listed and removable, are ours."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from bastide.api import ssh_shapes
from bastide.api.authentication import CallerOf
from bastide.api.context import Services, ServicesOf
from bastide.api.envelope import Envelope, success
from bastide.domain.config import Text
from bastide.domain.ssh import MAX_KEY, USER
from bastide.services.ssh import SshView

router = APIRouter(tags=["SSH"])

Account = Annotated[Text, Field(max_length=64)]


class SetPassword(BaseModel):
    """Body of `POST …/ssh/password`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    password: Annotated[Text, Field(max_length=1024, repr=False)]
    user: Account = USER


class AddKey(BaseModel):
    """Body of `POST …/ssh/key` and `POST …/ssh/keys`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    public_key: Annotated[Text, Field(max_length=MAX_KEY)]
    user: Account = USER


@router.get("/workspace/{id}/ssh", summary="SSH status")
async def get_ssh(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Whether it is enabled, how to connect, and the fingerprints to expect."""
    return _status(services, await services.ssh.get(caller, id))


@router.post("/workspace/{id}/ssh/enable", summary="Enable SSH")
async def enable(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Open it; `ssh_password` is shown here and nowhere else."""
    view = await services.ssh.enable(caller, id)
    password = {} if view.password is None else {"ssh_password": view.password}
    return _status(services, view, **password)


@router.post("/workspace/{id}/ssh/disable", summary="Disable SSH")
async def disable(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """Close it; sessions end. Keys, password and host key are kept."""
    return _status(services, await services.ssh.disable(caller, id))


@router.post("/workspace/{id}/ssh/password", summary="Set SSH password")
async def set_password(
    id: str,  # noqa: A002 - the wire's name
    body: SetPassword,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Replace the password; the one before opens nothing any more."""
    return _status(services, await services.ssh.set_password(caller, id, body.password, body.user))


@router.post("/workspace/{id}/ssh/key", summary="Set SSH key")
async def set_key(
    id: str,  # noqa: A002 - the wire's name
    body: AddKey,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Let a key in, beside those that are in already."""
    view, key = await services.ssh.add_key(caller, id, body.public_key, body.user)
    return _status(services, view, key=ssh_shapes.key(key))


@router.get("/workspace/{id}/ssh/keys", summary="List SSH keys")
async def list_keys(id: str, caller: CallerOf, services: ServicesOf) -> Envelope:  # noqa: A002
    """The keys that open the workspace, in the order they came."""
    return success(keys=ssh_shapes.keys(await services.ssh.get(caller, id)))


@router.post("/workspace/{id}/ssh/keys", summary="Add SSH key", status_code=201)
async def add_key(
    id: str,  # noqa: A002 - the wire's name
    body: AddKey,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Let a key in; one that is in already stays as it is."""
    view, key = await services.ssh.add_key(caller, id, body.public_key, body.user)
    return success(201, key=ssh_shapes.key(key), keys=ssh_shapes.keys(view))


@router.delete("/workspace/{id}/ssh/keys/{fingerprint:path}", summary="Remove SSH key")
async def remove_key(
    id: str,  # noqa: A002 - the wire's name
    fingerprint: str,
    caller: CallerOf,
    services: ServicesOf,
) -> Envelope:
    """Let a key in no more; what it has opened through the bastion is closed."""
    view = await services.ssh.remove_key(caller, id, fingerprint)
    return success(keys=ssh_shapes.keys(view))


def _status(services: Services, view: SshView, **more: Any) -> Envelope:
    return success(**ssh_shapes.status(view, services.settings), **more)
