"""Sends calls and tries again where that is safe; one class for each colour of function."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import TypeVar

import httpx

from bastide.client._call import USUAL_TIMEOUT, Call, Tries, connection_failed
from bastide.client._errors import error_of

T = TypeVar("T")


def loopback(base_url: str) -> bool:
    """Whether the server is this host itself, where a proxy of the environment has no business."""
    host = httpx.URL(base_url).host
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Session:
    """Connections to one base URL."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        retries: int,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            headers=headers,
            timeout=USUAL_TIMEOUT,
            transport=transport,
            trust_env=not loopback(base_url),
        )
        self._retries = retries
        self._sleep = sleep

    def send(self, call: Call[T], token: str | None = None) -> T:
        """The result of one call.

        Raises:
            ApiError: the server refused.
            ConnectionFailed: it did not answer.
        """
        tries = Tries(call, self._retries)
        while True:
            try:
                response = self._http.send(call.request(self._http, token))
            except httpx.TransportError as error:
                self._sleep(tries.after_error(error))
                continue
            delay = tries.after_answer(response)
            if delay is None:
                return call.result(response)
            self._sleep(delay)

    @contextlib.contextmanager
    def stream(self, call: Call[None], token: str | None = None) -> Iterator[httpx.Response]:
        """An answer that is read as it comes."""
        try:
            response = self._http.send(call.request(self._http, token), stream=True)
            try:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            raise connection_failed(error) from error

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()


class AsyncSession:
    """Connections to one base URL, for asyncio."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        retries: int,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=USUAL_TIMEOUT,
            transport=transport,
            trust_env=not loopback(base_url),
        )
        self._retries = retries
        self._sleep = sleep

    async def send(self, call: Call[T], token: str | None = None) -> T:
        """The result of one call; raises as `Session.send` does."""
        tries = Tries(call, self._retries)
        while True:
            try:
                response = await self._http.send(call.request(self._http, token))
            except httpx.TransportError as error:
                await self._sleep(tries.after_error(error))
                continue
            delay = tries.after_answer(response)
            if delay is None:
                return call.result(response)
            await self._sleep(delay)

    @contextlib.asynccontextmanager
    async def stream(
        self, call: Call[None], token: str | None = None
    ) -> AsyncIterator[httpx.Response]:
        """An answer that is read as it comes."""
        try:
            response = await self._http.send(call.request(self._http, token), stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response)
                yield response
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise connection_failed(error) from error

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()
