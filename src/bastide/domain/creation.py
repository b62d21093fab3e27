"""The bodies of POST /workspace and PUT /workspace/:id (spec 4.1)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bastide.domain.config import Config, Later, Text
from bastide.domain.errors import ValidationFailed
from bastide.domain.lease import Lease, TtlAction
from bastide.domain.lifecycle import Mode
from bastide.domain.reference import looks_like_one
from bastide.domain.slug import check_slug

# Fields that older clients send at the top level, and what `config` calls them (spec 4.1).
_MOVED = {
    "cpus": "cpus",
    "vcpus": "cpus",
    "memory_mb": "memory_mb",
    "ram_mb": "memory_mb",
    "disk_size_mb": "disk_size_mb",
    "writable_size_mb": "disk_size_mb",
    "disk_mb": "disk_size_mb",
}


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value.strip()


def _url(value: str) -> str:
    if not value.startswith(("https://", "http://")) or not value.isprintable() or " " in value:
        raise ValueError("must be an http or https URL")
    return value


Name = Annotated[Text, AfterValidator(_printable), Field(max_length=255)]
Slug = Annotated[Text, AfterValidator(check_slug)]
Logo = Annotated[Text, AfterValidator(_url), Field(max_length=2048)]


class ImageAuth(BaseModel):
    """Who asks a registry for an image; a token goes as password, with the name it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    username: Annotated[Text, Field(max_length=256)] = ""
    password: Annotated[Text, Field(min_length=1, max_length=16384, repr=False)]


class CreateWorkspace(BaseModel):
    """Body of POST /workspace; every field is optional."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name | None = None
    slug: Slug | None = None
    logo: Logo | None = None
    image: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    image_auth: ImageAuth | None = Field(
        None, description="credentials for the registry of `image`; never shown again"
    )
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?$")] | None = (
        Field(None, description="slug of a namespace; absent: a personal workspace")
    )
    mode: Mode | None = None
    config: Config | None = None
    wait_ready: StrictBool = False
    idempotency_key: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    preset: Later = None

    @field_validator("image_auth")
    @classmethod
    def _of_a_registry(cls, value: ImageAuth | None, info: ValidationInfo) -> ImageAuth | None:
        if value is not None and not looks_like_one(info.data.get("image") or ""):
            raise ValueError("belongs to an image of a registry, such as registry/name:tag")
        return value

    @model_validator(mode="before")
    @classmethod
    def _older_clients(cls, value: Any) -> Any:
        """Move the convenience fields into `config`, which wins where both are given."""
        return move_sizes(value)

    @property
    def lease(self) -> Lease | None:
        """The lease of a temporary workspace; None: it is to be permanent.

        A `ttl` without `mode` asks for a temporary one; a temporary one must have it (spec 5.1).

        Raises:
            ValidationFailed: mode and lease contradict each other.
        """
        config = self.config or Config()
        if self.mode is Mode.TEMPORARY or (self.mode is None and config.ttl is not None):
            if config.ttl is None:
                raise ValidationFailed(
                    "config.ttl", 'A temporary workspace needs config.ttl, such as "1h".'
                )
            action = config.ttl_action or TtlAction.STOP
            return Lease(config.ttl, action, bool(config.remove_on_exit))
        for field in ("ttl", "ttl_action", "remove_on_exit"):
            if getattr(config, field):
                raise ValidationFailed(
                    f"config.{field}",
                    f"{field} belongs to a temporary workspace; leave it out, or set mode to "
                    '"temporary" and give config.ttl.',
                )
        return None


class UpdateWorkspace(BaseModel):
    """Body of PUT /workspace/:id; only what is given changes, null clears slug and logo."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name | None = None
    slug: Slug | None = None
    logo: Logo | None = None
    config: Config | None = None
    auto_stop_seconds: Later = None

    @model_validator(mode="before")
    @classmethod
    def _older_clients(cls, value: Any) -> Any:
        return move_sizes(value)


def move_sizes(value: Any) -> Any:
    """The body with sizes of older clients moved into its `config`."""
    if not isinstance(value, dict):
        return value
    config = value.get("config")
    if config is not None and not isinstance(config, dict):
        return value
    moved = {new: value[old] for old, new in _MOVED.items() if value.get(old) is not None}
    given = dict(config or {})
    if "writable_size_mb" in given:
        moved.pop("disk_size_mb", None)
    return {**value, "config": {**moved, **given}} if moved else value
