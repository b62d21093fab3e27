"""Tasks of a workspace, as the events of their commands tell of them."""

from __future__ import annotations

from collections.abc import Iterator

from bastide.client import ExecEvent, Started


def started(events: Iterator[ExecEvent]) -> str:
    """The id of a task that has begun."""
    for event in events:
        if isinstance(event, Started):
            return event.task_id
    raise AssertionError("the command was not started")
