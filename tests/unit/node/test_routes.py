"""The node's socket: what is wrong with a call is said, not failed over."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import cast

import httpx
import pytest

from bastide.node.app import create_app
from bastide.node.node import Node


@pytest.mark.parametrize("limit", ["9" * 5000, "0", "-1", "1e3", "٣", "1048577", ""])
async def test_a_wrong_limit_of_the_console_is_invalid(limit: str) -> None:
    """Also a number too long to be read gets a 422 that names the field."""
    transport = httpx.ASGITransport(create_app(cast("Node", None)))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        answer = await client.get("/v1/machines/ws_00000001/console", params={"limit": limit})
    assert answer.status_code == 422
    assert answer.json()["details"]["field"] == "limit"


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        (errno.ENOSPC, 503, "no_space"),
        (errno.EDQUOT, 503, "no_space"),
        (errno.EIO, 500, "internal"),
    ],
)
async def test_a_full_host_is_told_wherever_it_is_met(number: int, status: int, code: str) -> None:
    """Storage without room is a refusal with what to do, not a failure of the node."""

    async def full(_: object) -> None:
        raise OSError(number, "as the kernel says it")

    app = create_app(cast("Node", None))
    app.state.node = SimpleNamespace(power=SimpleNamespace(pause=full))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://node"
    ) as client:
        answer = await client.post("/v1/machines/ws_00000001/pause")
    assert (answer.status_code, answer.json()["error"]) == (status, code)
