"""The two clients: `Bastide` and, for asyncio, `AsyncBastide`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx

from bastide.client._async_workspaces import AsyncImages, AsyncWorkspaces
from bastide.client._config import Config
from bastide.client._session import AsyncSession, Session
from bastide.client._tokens import Tokens
from bastide.client._workspaces import Images, Workspaces

RETRIES = 4


class Bastide:
    """A Bastide server.

    What is not given is read from `BASTIDE_API_URL`, `BASTIDE_GATEWAY_URL`, `BASTIDE_CLIENT_ID`,
    `BASTIDE_CLIENT_SECRET` or `BASTIDE_TOKEN`. `retries` is how often a call that is safe to
    repeat is sent again. `transport` replaces the network, for tests.

    Raises:
        ConfigurationError: an address or a key is missing.
    """

    def __init__(
        self,
        *,
        api_url: str | None = None,
        gateway_url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        token: str | None = None,
        retries: int = RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        config = Config.of(
            api_url=api_url,
            gateway_url=gateway_url,
            client_id=client_id,
            client_secret=client_secret,
            token=token,
        )
        self._api = Session(config.api_url, config.headers, retries=retries, transport=transport)
        self._gateway = Session(config.gateway_url, {}, retries=retries, transport=transport)
        self.workspaces = Workspaces(self._api, self._gateway, Tokens())
        self.images = Images(self._api)

    @classmethod
    def from_env(cls) -> Self:
        """A client of what the environment names."""
        return cls()

    def close(self) -> None:
        """Let go of the connections."""
        self._api.close()
        self._gateway.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncBastide:
    """A Bastide server, for asyncio; the arguments are those of `Bastide`."""

    def __init__(
        self,
        *,
        api_url: str | None = None,
        gateway_url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        token: str | None = None,
        retries: int = RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        config = Config.of(
            api_url=api_url,
            gateway_url=gateway_url,
            client_id=client_id,
            client_secret=client_secret,
            token=token,
        )
        self._api = AsyncSession(
            config.api_url, config.headers, retries=retries, transport=transport
        )
        self._gateway = AsyncSession(config.gateway_url, {}, retries=retries, transport=transport)
        self.workspaces = AsyncWorkspaces(self._api, self._gateway, Tokens())
        self.images = AsyncImages(self._api)

    @classmethod
    def from_env(cls) -> Self:
        """A client of what the environment names."""
        return cls()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._api.close()
        await self._gateway.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
