"""The node's own word with the agent inside a machine, over its control port.

What answers is inside a workspace and therefore hostile: answers are bounded in size and time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from bastide.domain.machine import CONTROL_PORT
from bastide.node.errors import BootFailed

MOST_ANSWER = 16 * 1024
TIMEOUT = 5.0


async def tell(
    address: str,
    token: str,
    what: str,
    document: Mapping[str, object] | None = None,
    *,
    seconds: float = TIMEOUT,
) -> None:
    """`POST /control/WHAT`, its answer read and dropped, all within `seconds`.

    Raises:
        BootFailed: the agent does not answer as it must.
    """
    url = f"http://{address}:{CONTROL_PORT}/control/{what}"
    headers = {"authorization": f"Bearer {token}", "connection": "close"}
    try:
        async with (
            asyncio.timeout(seconds),
            # plain HTTP only: reading the certificates that TLS would need takes 20 ms
            httpx.AsyncClient(trust_env=False, verify=False, timeout=seconds) as http,  # noqa: S501
            http.stream("POST", url, json=dict(document or {}), headers=headers) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise BootFailed(f"the agent refuses {what}: {answer.status_code}")
            size = 0
            async for part in answer.aiter_raw():
                size += len(part)
                if size > MOST_ANSWER:
                    raise BootFailed(f"the agent answers {what} without end")
    except (httpx.HTTPError, TimeoutError) as error:
        raise BootFailed(f"the agent does not answer {what}: {error or 'no answer'}") from error
