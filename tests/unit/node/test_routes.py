"""The node's socket: what is wrong with a call is said, not failed over."""

from __future__ import annotations

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
