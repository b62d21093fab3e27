"""A client of OCI registries, for reading: manifests and blobs, with the two ways to log in.

The connection goes to an address that was checked (see `passage`), also after a redirect; every
read is bounded; a blob goes on where it broke off. Credentials are kept in memory and sent to the
registry and its token service alone.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from types import TracebackType
from typing import Self

import httpx

from bastide.domain.machine import RegistryAuth
from bastide.domain.reference import DOCKER_HUB, Reference
from bastide.node.errors import (
    ImageDenied,
    ImageNotFound,
    ImageRefused,
    RegistryUnavailable,
)
from bastide.node.images.blobs import Blobs, Draft
from bastide.node.images.documents import (
    INDEXES,
    MANIFESTS,
    MOST_DOCUMENT,
    Descriptor,
    Index,
    digest_of,
    read,
)
from bastide.node.images.passage import Passage

_HUB_API = "registry-1.docker.io"
"""Where the registry that calls itself docker.io answers."""
_TRIES = 4
PAUSE = 0.25
"""Seconds before the second try; each further pause is twice as long."""
_MOST_REDIRECTS = 5
_MOST_TOKEN = 256 * 1024
_SILENCE = 30.0
"""Seconds without a byte after which a connection counts as dead."""
_SLOW_SECONDS, _SLOW_BYTES = 60.0, 16 * 1024
"""A blob must bring this many bytes a second on average once it has taken that long."""
_CHUNK = 256 * 1024
_TOO_OFTEN = httpx.codes.TOO_MANY_REQUESTS
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


class Registry:
    """One registry for the time of one pull; use it in an `async with`."""

    def __init__(self, host: str, passage: Passage, auth: RegistryAuth | None) -> None:
        self.host = host
        self._passage = passage
        self._auth = auth
        self._tokens: dict[str, str] = {}
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._stack = AsyncExitStack()
        api = _HUB_API if host == DOCKER_HUB else host
        self._base = httpx.URL(f"{passage.scheme(host)}://{api}")

    async def __aenter__(self) -> Self:
        """Ready to ask."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._stack.aclose()

    async def manifest(self, reference: Reference) -> tuple[str, bytes]:
        """Digest and bytes of the manifest for this host's platform.

        Raises:
            ImageNotFound, ImageDenied, ImageRefused, RegistryUnavailable: there is none.
        """
        kind, content = await self._manifest(reference.repository, reference.version)
        if reference.digest is not None and digest_of(content) != reference.digest:
            raise ImageRefused(f"what the registry sent is not {reference.digest[:19]}")
        if kind in INDEXES:
            chosen = read(Index, content, "index").fitting()
            kind, content = await self._manifest(reference.repository, chosen.digest)
            if digest_of(content) != chosen.digest:
                raise ImageRefused(f"what the registry sent is not {chosen.digest[:19]}")
        if kind not in MANIFESTS:
            raise ImageRefused(f"its manifest is of a kind that is not known: {kind[:100]}")
        return digest_of(content), content

    async def _manifest(self, repository: str, version: str) -> tuple[str, bytes]:
        accept = ", ".join(sorted(INDEXES | MANIFESTS))
        path = f"/v2/{repository}/manifests/{version}"
        for attempt in range(_TRIES):
            try:
                async with self._get(path, repository, {"Accept": accept}) as answer:
                    content = await _bounded(answer, MOST_DOCUMENT)
            except RegistryUnavailable:
                if attempt == _TRIES - 1:
                    raise
                await asyncio.sleep(PAUSE * 2**attempt)
            else:
                kind = answer.headers.get("content-type", "").partition(";")[0].strip()
                return kind, content
        raise AssertionError("unreachable")  # pragma: no cover

    async def small(self, repository: str, blob: Descriptor) -> bytes:
        """A blob that is a document.

        Raises:
            ImageRefused: it is too large, or not what its digest says.
        """
        if blob.size > MOST_DOCUMENT:
            raise ImageRefused("its configuration has more than 4 MiB")
        path = f"/v2/{repository}/blobs/{blob.digest}"
        async with self._get(path, repository, {}) as answer:
            content = await _bounded(answer, MOST_DOCUMENT)
        if digest_of(content) != blob.digest:
            raise ImageRefused(f"what the registry sent is not {blob.digest[:19]}")
        return content

    async def fetch(
        self, repository: str, blob: Descriptor, blobs: Blobs, tell: Callable[[int], None]
    ) -> None:
        """Have a blob in `blobs`; `tell` hears of how many more bytes there are (or fewer).

        Raises:
            ImageNotFound, ImageDenied, ImageRefused, RegistryUnavailable, NoSpace: it cannot be.
        """
        draft = await asyncio.to_thread(Draft, blobs, blob.digest, blob.size)
        tell(draft.have)
        try:
            for attempt in range(_TRIES):
                before = draft.have
                try:
                    await self._go_on(repository, blob, draft, tell)
                    break
                except RegistryUnavailable:
                    # one that brings something each time is not given up
                    if attempt == _TRIES - 1 and draft.have == before:
                        raise
                    await asyncio.sleep(PAUSE * 2**attempt)
            else:
                raise RegistryUnavailable(f"{self.host} breaks off again and again")
            await asyncio.to_thread(draft.finish)
        finally:
            draft.close()

    async def _go_on(
        self, repository: str, blob: Descriptor, draft: Draft, tell: Callable[[int], None]
    ) -> None:
        """Fetch what is missing of a blob."""
        wanted = {"Range": f"bytes={draft.have}-"} if draft.have else {}
        path = f"/v2/{repository}/blobs/{blob.digest}"
        began, before = time.monotonic(), draft.have
        async with self._get(path, repository, wanted) as answer:
            if wanted and answer.status_code != httpx.codes.PARTIAL_CONTENT:
                tell(-draft.have)
                draft.restart()
                before = 0
            try:
                async for chunk in answer.aiter_raw(_CHUNK):
                    draft.add(chunk)
                    tell(len(chunk))
                    spent = time.monotonic() - began
                    if spent > _SLOW_SECONDS and (draft.have - before) / spent < _SLOW_BYTES:
                        raise RegistryUnavailable(f"{self.host} sends too slowly")
            except httpx.TransportError as error:
                raise RegistryUnavailable(f"{self.host} broke off: {_said(error)}") from None
        if draft.have < blob.size:
            raise RegistryUnavailable(f"{self.host} broke off in the middle of a layer")

    @asynccontextmanager
    async def _get(
        self, path: str, repository: str, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """A successful answer to a GET below the registry's own address, redirects followed."""
        url = self._base.copy_with(path=path)
        for _ in range(_MOST_REDIRECTS + 2):
            own = (url.host, url.port, url.scheme) == (
                self._base.host, self._base.port, self._base.scheme
            )  # fmt: skip
            token = self._tokens.get(repository) if own else None
            sent = headers | ({"Authorization": token} if token else {})
            async with self._send(url, sent) as answer:
                if answer.is_redirect:
                    url = self._next(url, answer)
                    continue
                if answer.status_code == httpx.codes.UNAUTHORIZED and own and token is None:
                    challenge = answer.headers.get("www-authenticate", "")
                else:
                    self._check(answer, repository)
                    yield answer
                    return
            self._tokens[repository] = await self._log_in(challenge, repository)
        raise RegistryUnavailable(f"{self.host} redirects in circles")

    def _next(self, url: httpx.URL, answer: httpx.Response) -> httpx.URL:
        """Where a redirect leads.

        Raises:
            ImageDenied: away from TLS.
        """
        try:
            target = url.join(answer.headers.get("location", ""))
        except httpx.InvalidURL:
            raise RegistryUnavailable(f"{self.host} redirects to nowhere") from None
        self._check_scheme(target)
        return target

    def _check_scheme(self, url: httpx.URL) -> None:
        if url.scheme == "https":
            return
        port = f":{url.port}" if url.port else ""
        if url.scheme != "http" or self._passage.scheme(f"{url.host}{port}") != "http":
            raise ImageDenied(
                f"{self.host} leads to {url.host} without TLS, which images.insecure_registries "
                "does not allow"
            )

    def _check(self, answer: httpx.Response, repository: str) -> None:
        """Refuse everything but success."""
        if answer.is_success:
            return
        status, name = answer.status_code, f"{self.host}/{repository}"
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise self._denied(name)
        if status == httpx.codes.NOT_FOUND:
            raise ImageNotFound(f"{self.host} has no such image: {name}")
        if status == _TOO_OFTEN:
            raise RegistryUnavailable(f"{self.host} was asked too often; log in or wait")
        if status >= 500:
            raise RegistryUnavailable(f"{self.host} answers with status {status}")
        raise ImageRefused(f"{self.host} answers with status {status} for {name}")

    def _denied(self, name: str) -> ImageDenied:
        if self._auth is None:
            return ImageDenied(
                f"{name} does not exist or is not open to everybody: give image_auth, or log "
                f"this server in with bastide image login {self.host}"
            )
        return ImageDenied(f"{self.host} does not give {name} to these credentials")

    async def _log_in(self, challenge: str, repository: str) -> str:
        """The Authorization header for a repository.

        Raises:
            ImageDenied: the credentials are missing or wrong.
        """
        kind, _, rest = challenge.partition(" ")
        basic = self._basic()
        if kind.lower() == "basic":
            if basic is None:
                raise self._denied(f"{self.host}/{repository}")
            return basic
        values = {key.lower(): value for key, value in _PARAMETER.findall(rest[:4096])}
        if kind.lower() != "bearer" or "realm" not in values:
            raise ImageDenied(f"{self.host} asks for a login of a kind that is not known")
        try:
            realm = httpx.URL(values["realm"])
        except httpx.InvalidURL:
            raise RegistryUnavailable(f"{self.host} names no place to log in") from None
        self._check_scheme(realm)
        query = {"scope": f"repository:{repository}:pull"}
        if "service" in values:
            query["service"] = values["service"]
        headers = {"Authorization": basic} if basic else {}
        async with self._send(realm.copy_merge_params(query), headers) as answer:
            if answer.status_code in {400, 401, 403}:
                raise self._denied(f"{self.host}/{repository}")
            if not answer.is_success:
                raise RegistryUnavailable(
                    f"the login of {self.host} answers with status {answer.status_code}"
                )
            content = await _bounded(answer, _MOST_TOKEN)
        return f"Bearer {_token(content, self.host)}"

    def _basic(self) -> str | None:
        if self._auth is None:
            return None
        request = httpx.Request("GET", "http://x")
        basic = httpx.BasicAuth(self._auth.username, self._auth.password)
        return str(next(basic.sync_auth_flow(request)).headers["Authorization"])

    @asynccontextmanager
    async def _send(self, url: httpx.URL, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """One request, sent to an address of its host that was checked."""
        port = url.port or (443 if url.scheme == "https" else 80)
        failure: Exception | None = None
        client = self._client(f"{url.scheme}://{url.host}:{port}")
        for address in (await self._passage.addresses(url.host, port))[:4]:
            request = client.build_request(
                "GET",
                url.copy_with(host=address),
                headers={"Host": url.netloc.decode(), "Accept-Encoding": "identity", **headers},
                extensions={"sni_hostname": url.host, "timeout": _TIMEOUT.as_dict()},
            )
            try:
                answer = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
                continue
            except (httpx.TransportError, httpx.InvalidURL) as error:
                failure = error
                break
            try:
                yield answer
            finally:
                await answer.aclose()
            return
        raise RegistryUnavailable(f"{url.host} cannot be reached: {_said(failure)}")

    def _client(self, origin: str) -> httpx.AsyncClient:
        """A client for one host alone: its connections are never used for another name."""
        if origin not in self._clients:
            client = httpx.AsyncClient(
                verify=self._context, trust_env=False, follow_redirects=False
            )
            self._stack.push_async_callback(client.aclose)
            self._clients[origin] = client
        return self._clients[origin]

    @cached_property
    def _context(self) -> ssl.SSLContext:
        """For all origins: to read the system's authorities takes long."""
        context = ssl.create_default_context()
        extra = self._passage.settings.ca_file
        if extra is not None:
            try:
                context.load_verify_locations(cafile=extra)
            except OSError as error:
                raise RegistryUnavailable(f"images.ca_file cannot be read: {error}") from None
        return context


_TIMEOUT = httpx.Timeout(_SILENCE, connect=15.0)


async def _bounded(answer: httpx.Response, most: int) -> bytes:
    content = b""
    try:
        async for chunk in answer.aiter_raw():
            content += chunk
            if len(content) > most:
                raise ImageRefused(f"the registry sent a document of more than {most >> 20} MiB")
    except httpx.TransportError as error:
        raise RegistryUnavailable(f"the registry broke off: {_said(error)}") from None
    return content


def _token(content: bytes, host: str) -> str:
    try:
        document = json.loads(content)
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryUnavailable(f"the login of {host} gave no token")
    return token


def _said(error: Exception | None) -> str:
    """Why a connection failed, in one line."""
    text = str(error or "no address answers").strip()
    return " ".join(text.split())[:200] or type(error).__name__
