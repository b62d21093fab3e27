"""Leases: how long a temporary workspace lives, and what then becomes of it (spec 5.1, 5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from bastide.domain.duration import parse_duration
from bastide.domain.restart import RestartPolicy, present_word

_UNITS = (("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60))


class TtlAction(StrEnum):
    """What happens when a lease ends."""

    STOP = "stop"
    PAUSE = "pause"
    REMOVE = "remove"


def duration_text(seconds: int) -> str:
    """The shortest way to write a duration: `1h` for 3600."""
    for unit, length in _UNITS:
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _ttl(value: Any) -> Any:
    """A duration in the form it is kept and shown: the owner's own words, or the shortest."""
    seconds = parse_duration(value)
    return value.strip().lower() if isinstance(value, str) else duration_text(seconds)


def _action(value: Any) -> Any:
    if value == "suspend":
        raise ValueError(
            'suspend (memory saved to disk) is not available here; use "stop", "pause" or "remove"'
        )
    return value


def _locked(value: Any) -> Any:
    if present_word(value) not in (None, RestartPolicy.NO):
        raise ValueError(
            'restart_policy of a temporary workspace is locked to "no"; leave it out, or make '
            "the workspace permanent"
        )
    return value


Ttl = Annotated[str, BeforeValidator(_ttl)]
Locked = Annotated[Any, BeforeValidator(_locked)]
Action = Annotated[TtlAction, BeforeValidator(_action)]


@dataclass(frozen=True, slots=True)
class Lease:
    """The rules of a temporary workspace: `ttl` as the owner wrote it."""

    ttl: str
    action: TtlAction = TtlAction.STOP
    remove_on_exit: bool = False

    @property
    def seconds(self) -> int:
        """How long it lasts."""
        return parse_duration(self.ttl)

    def ends(self, begin: datetime, seconds: int | None = None) -> datetime:
        """When it ends if it begins (or is renewed) at `begin`, for `seconds` if given."""
        return begin + timedelta(seconds=self.seconds if seconds is None else seconds)


def _off(value: Any) -> Any:
    if value not in (None, 0, "0"):
        raise ValueError(
            "automatic sleep (idle) is not available yet; send 0 for suspend_after, or keep the "
            "workspace short with a ttl"
        )
    return None


class MakePermanent(BaseModel):
    """Body of POST /workspace/:id/lifecycle/permanent (seed 003)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    restart_policy: RestartPolicy = RestartPolicy.ALWAYS


class MakeTemporary(BaseModel):
    """Body of POST /workspace/:id/lifecycle/temporary (seed 003)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ttl: Ttl
    ttl_action: Action = TtlAction.STOP
    remove_on_exit: StrictBool = False

    restart_policy: Locked = None

    @property
    def lease(self) -> Lease:
        """The rules it asks for."""
        return Lease(self.ttl, self.ttl_action, self.remove_on_exit)


class UpdateTtl(BaseModel):
    """Body of PUT /workspace/:id/lifecycle/ttl: at least one of the two (seed 003)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ttl: Ttl | None = None
    ttl_action: Action | None = None

    restart_policy: Locked = None

    @model_validator(mode="after")
    def _something(self) -> UpdateTtl:
        if self.ttl is None and self.ttl_action is None:
            raise ValueError("give ttl, ttl_action, or both")
        return self


class Idle(BaseModel):
    """Body of PUT /workspace/:id/lifecycle/idle: only "off" can be asked for yet."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    suspend_after: Annotated[Any, BeforeValidator(_off)] = None
    stop_after: Annotated[Any, BeforeValidator(_off)] = None


class Ping(BaseModel):
    """Body of POST /workspace/:id/ping: another length for this renewal, in seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ttl_seconds: Annotated[int, BeforeValidator(parse_duration)] | None = Field(None)
