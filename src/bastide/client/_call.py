"""One call of the API, described without doing it: the sync and async clients share these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from bastide.client._errors import ConnectionBroken, ConnectionFailed, error_of, retry_after
from bastide.client._values import check

T = TypeVar("T")
USUAL_TIMEOUT = 30.0
LONG_TIMEOUT = 600.0
RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Call(Generic[T]):
    """Method, path and body of a request, and how its answer is read.

    `repeatable` says that sending it twice does no more than sending it once. `timeout` in
    seconds is for reading the answer; None waits for ever.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    timeout: float | None = USUAL_TIMEOUT

    def request(self, http: httpx.Client | httpx.AsyncClient, token: str | None) -> httpx.Request:
        """The request, with a bearer token when one is given.

        Raises:
            InvalidValue: a value of it cannot be sent.
        """
        check(self.params)
        check(self.json)
        params = {name: _text(value) for name, value in given(self.params).items()}
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        return http.build_request(
            self.method,
            self.path,
            params=params or None,
            json=self.json,
            content=self.content,
            headers={**self.headers, **bearer},
            timeout=httpx.Timeout(USUAL_TIMEOUT, read=self.timeout),
        )

    def result(self, response: httpx.Response) -> T:
        """What the answer says.

        Raises:
            ApiError: it refuses.
        """
        if response.is_success:
            try:
                body = response.json() if response.content else {}
            except ValueError:
                body = None
            if isinstance(body, dict) and body.get("success") is not False:
                return self.read(body)
        raise error_of(response)


class Tries:
    """How often and after what delays one call is sent again."""

    def __init__(self, call: Call[Any], most: int) -> None:
        self._call = call
        self._left = most
        self._delay = 0.1

    def after_answer(self, response: httpx.Response) -> float | None:
        """Seconds to wait before the next try, or None when the answer stands."""
        if response.status_code not in RETRIED_STATUSES:
            return None
        if not (self._call.repeatable or response.status_code == 429):
            return None
        return self._again(retry_after(response))

    def after_error(self, error: httpx.TransportError) -> float:
        """Seconds to wait before the next try.

        Raises:
            ConnectionFailed: there is no next try.
        """
        never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        delay = self._again(None) if never_sent or self._call.repeatable else None
        if delay is None:
            raise connection_failed(error) from error
        return delay

    def _again(self, told: float | None) -> float | None:
        if self._left == 0:
            return None
        self._left -= 1
        delay, self._delay = self._delay, self._delay * 2
        return delay if told is None else min(told, 60.0)


def connection_failed(error: httpx.TransportError) -> ConnectionFailed:
    """The error of this client for one of the transport."""
    try:
        where = f"{error.request.url.scheme}://{error.request.url.netloc.decode()}"
    except RuntimeError:
        where = "the server"
    why = error or type(error).__name__
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError) and not isinstance(
        error, httpx.ConnectError
    ):
        return ConnectionBroken(f"the connection to {where} broke: {why}")
    return ConnectionFailed(f"{where} did not answer: {why}")


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller gave: all but None."""
    return {name: value for name, value in values.items() if value is not None}


def part(identifier: str) -> str:
    """An id as one segment of a path.

    Raises:
        InvalidValue: it is no text.
    """
    check(identifier, "id")
    return quote(identifier, safe="")


def _text(value: Any) -> Any:
    return ("true" if value else "false") if isinstance(value, bool) else value
