"""What a running command tells while it runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from httpx_sse import ServerSentEvent


@dataclass(frozen=True, slots=True)
class Started:
    """The command runs; `task_id` names it."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes the command has written."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Exited:
    """The command has ended."""

    exit_code: int
    error: str | None = None


ExecEvent = Started | Output | Exited


def exec_events(event: ServerSentEvent) -> Iterator[ExecEvent]:
    """The events in one frame of `/exec/stream` (spec runtime 6.3); unknown frames have none."""
    if event.event not in ("task_id", "stdout", "stderr", "output", "exit"):
        return
    data = json.loads(event.data)
    match event.event:
        case "task_id":
            yield Started(str(data["task_id"]))
        case "stdout":
            yield Output("stdout", base64.b64decode(data["data"]))
        case "stderr":
            yield Output("stderr", base64.b64decode(data["data"]))
        case "output":
            # What a finished task has kept comes as text.
            if data.get("stdout"):
                yield Output("stdout", data["stdout"].encode())
            if data.get("stderr"):
                yield Output("stderr", data["stderr"].encode())
        case _:
            code = data.get("exit_code")
            yield Exited(-1 if code is None else int(code), data.get("error"))
