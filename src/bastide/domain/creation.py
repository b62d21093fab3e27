"""The bodies of POST /workspace and PUT /workspace/:id (spec 4.1)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from bastide.domain.config import Config, Later, Text
from bastide.domain.errors import ValidationFailed
from bastide.domain.lease import Lease, TtlAction
from bastide.domain.lifecycle import Mode
from bastide.domain.namespace import PATTERN, check_namespace
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


_KEPT = {
    "mode": "The mode is changed with POST /workspace/:id/lifecycle/temporary or POST "
    "/workspace/:id/lifecycle/permanent.",
    "image": "A workspace keeps its image. Create a new one of the other image; files come along "
    "in an archive (config.archive).",
    "namespace": "A workspace stays in its namespace. Create a new one in the other; files come "
    "along in an archive (config.archive).",
}


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value.strip()


def _url(value: str) -> str:
    if not value.startswith(("https://", "http://")) or not value.isprintable() or " " in value:
        raise ValueError("must be an http or https URL")
    return value


def _of_a_creation(value: Any) -> Any:
    if value is not None:
        raise ValueError("is given when a workspace is created; leave it out")
    return value


Name = Annotated[Text, AfterValidator(_printable), Field(max_length=255)]
Slug = Annotated[Text, AfterValidator(check_slug)]
Namespace = Annotated[
    Text,
    AfterValidator(check_namespace),
    WithJsonSchema({"type": "string", "pattern": f"^{PATTERN}$"}),
]
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
    namespace: Namespace | None = Field(
        None, description="slug of a namespace; absent: a personal workspace"
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
    """Body of PUT /workspace/:id; only what is given changes, null clears slug and logo.

    `mode`, `image` and `namespace` are not changed here: who sends a workspace back as it was
    shown is heard, and another value is refused by `check_kept`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name | None = None
    slug: Slug | None = None
    logo: Logo | None = None
    config: Config | None = None
    mode: Mode | None = None
    image: Text | None = None
    namespace: Text | None = None
    image_auth: Annotated[Any, BeforeValidator(_of_a_creation)] = None
    auto_stop_seconds: Later = None
    preset: Later = None

    @model_validator(mode="before")
    @classmethod
    def _older_clients(cls, value: Any) -> Any:
        return move_sizes(value)

    def check_kept(self, *, mode: Mode, image: str, namespace: str | None) -> None:
        """Refuse another value than the workspace's where an update cannot give it one.

        Raises:
            ValidationFailed: names the field, and what does.
        """
        for field, now in (("mode", mode), ("image", image), ("namespace", namespace)):
            if getattr(self, field) not in {None, now}:
                raise ValidationFailed(field, _KEPT[field])


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
