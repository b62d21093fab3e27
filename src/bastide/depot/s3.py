"""A depot in a bucket of S3, or of anything that speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from bastide.depot.contract import PIECE, Depot, DepotError, Draft, Missing, checked

PART_BYTES = 16 * 1024 * 1024
"""Bytes of one part of an upload. S3 takes 10,000 of them: an archive may have 156 GiB."""
_CONCURRENCY = 2
_WAITING = 4
_FAILURES = (BaseError, OSError)
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Bucket:
    """Where it is, and with which key; empty: as the environment (`AWS_*`) says."""

    name: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)


class S3Depot(Depot):
    """Objects of a bucket. An upload has parts, which become an object in one step.

    An upload that fails is aborted; of one whose process dies the parts stay invisible until the
    bucket's lifecycle rule drops them (docs/archives.md).
    """

    def __init__(self, bucket: Bucket, *, retry: timedelta = timedelta(seconds=60)) -> None:
        """`retry`: how long one request is tried again before the depot counts as gone."""
        self._where = f"s3://{bucket.name}/{bucket.prefix}"
        given = {
            "endpoint": bucket.endpoint,
            "region": bucket.region,
            "access_key_id": bucket.access_key_id,
            "secret_access_key": bucket.secret_access_key,
        }
        self._store = S3Store(
            bucket.name,
            prefix=bucket.prefix or None,
            client_options={
                "allow_http": bucket.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=120),
            },
            retry_config={"max_retries": 12, "retry_timeout": retry},
            **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]  # each has its own key
        )

    @asynccontextmanager
    async def draft(self, name: str) -> AsyncIterator[Draft]:
        """See `Depot.draft`."""
        upload = _Upload(self, self._store, checked(name))
        try:
            yield upload
        finally:
            await upload.abandon()

    async def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See `Depot.read`."""
        if end is not None and end <= start:
            return
        try:
            options: obstore.GetOptions = {}
            if end is not None:
                options = {"range": (start, end)}
            elif start:
                options = {"range": {"offset": start}}
            found = await obstore.get_async(self._store, checked(name), options=options)
            async for piece in found.stream(min_chunk_size=PIECE):
                yield bytes(piece)
        except FileNotFoundError:
            raise Missing(f"the file {name} is not in {self._where}") from None
        except _FAILURES as error:
            raise self.problem(error) from error

    async def size(self, name: str) -> int | None:
        """See `Depot.size`."""
        try:
            return (await obstore.head_async(self._store, checked(name)))["size"]
        except FileNotFoundError:
            return None
        except _FAILURES as error:
            raise self.problem(error) from error

    async def remove(self, name: str) -> None:
        """See `Depot.remove`."""
        try:
            await obstore.delete_async(self._store, checked(name))
        except FileNotFoundError:
            return
        except _FAILURES as error:
            raise self.problem(error) from error

    def problem(self, error: BaseException) -> DepotError:
        """The library's error in a sentence."""
        reason = str(error).partition("\n")[0][:_LONGEST_REASON]
        return DepotError(f"{self._where} cannot be used: {reason}")


class _AbandonedError(Exception):
    """Ends an upload that is not wanted any more; the library then aborts it."""


class _Upload(Draft):
    """The parts of one object, sent while they come; at most a few pieces wait."""

    def __init__(self, depot: S3Depot, store: S3Store, name: str) -> None:
        self._depot = depot
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        self._abandoned = asyncio.Event()
        self._sending = asyncio.ensure_future(
            obstore.put_async(
                store,
                name,
                self._take(),
                use_multipart=True,
                chunk_size=PART_BYTES,
                max_concurrency=_CONCURRENCY,
            )
        )

    async def write(self, data: bytes) -> None:
        """See `Draft.write`."""
        await self._give(data)

    async def publish(self) -> None:
        """See `Draft.publish`."""
        await self._give(None)
        try:
            await asyncio.shield(self._sending)
        except _FAILURES as error:
            raise self._depot.problem(error) from error

    async def abandon(self) -> None:
        """End the upload, unless it has been published."""
        self._abandoned.set()
        await asyncio.gather(self._sending, return_exceptions=True)

    async def _give(self, piece: bytes | None) -> None:
        """Hand over a piece, or learn that the upload has failed."""
        giving = asyncio.ensure_future(self._pieces.put(piece))
        try:
            await asyncio.wait((giving, self._sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            given = giving.done()
            giving.cancel()
        if not given or self._sending.done():
            error = self._sending.exception() if self._sending.done() else None
            raise self._depot.problem(error or _AbandonedError("the upload ended too early"))

    async def _take(self) -> AsyncIterator[bytes]:
        """What the library uploads."""
        abandoned = asyncio.ensure_future(self._abandoned.wait())
        try:
            while True:
                coming = asyncio.ensure_future(self._pieces.get())
                try:
                    await asyncio.wait((coming, abandoned), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    arrived = coming.done()
                    coming.cancel()
                if self._abandoned.is_set() or not arrived:
                    raise _AbandonedError("it is not wanted any more")
                piece = coming.result()
                if piece is None:
                    return
                yield piece
        finally:
            abandoned.cancel()
