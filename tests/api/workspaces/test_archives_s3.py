"""Archives in a bucket of a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta

import pytest
import zstandard
from tests.api.workspaces.cloud import World, eventually
from tests.s3 import S3Server

from bastide.depot.s3 import S3Depot

MIB = 1024 * 1024


@pytest.fixture
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server of its own: a test ends it."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


async def test_an_archive_lives_in_a_bucket(world: World, s3: S3Server) -> None:
    """Stored, listed, downloaded in parts, put back, and gone from the bucket when deleted."""
    world.depot = S3Depot(s3.place("cloud"))
    world.agent.pieces = [os.urandom(MIB) for _ in range(40)]
    content = b"".join(world.agent.pieces)
    async with world.cloud() as cloud:
        found = await cloud.create()
        path = f"/workspace/{found['id']}/archives"
        made = await cloud.call("POST", path, status=201)
        assert made["tar_bytes"] == len(content)
        assert b"cloud/arc_" in s3.ask("GET", "/archives")[1]
        answer = await cloud.http.get(f"{path}/1/download")
        assert hashlib.sha256(answer.content).hexdigest() == made["sha256"]
        assert zstandard.ZstdDecompressor().decompressobj().decompress(answer.content) == content
        part = await cloud.http.get(f"{path}/1/download", headers={"Range": "bytes=7-1000006"})
        assert part.content == answer.content[7:1000007]
        await cloud.call("POST", f"{path}/1/restore")
        assert world.agent.unpacked == [(found["id"], "/", content)]
        await cloud.call("DELETE", f"{path}/1?delete_file=true")
        assert b"arc_" not in s3.ask("GET", "/archives")[1]


async def test_a_bucket_that_goes_in_the_middle(world: World, s3: S3Server) -> None:
    """503 with the bucket's name within the retries; the workspace is as before."""
    world.depot = S3Depot(s3.place(), retry=timedelta(seconds=2))
    world.agent.pieces = [os.urandom(MIB) for _ in range(64)]
    async with world.cloud() as cloud:
        found = await cloud.create()
        path = f"/workspace/{found['id']}/archives"
        world.agent.flow.clear()
        making = asyncio.create_task(cloud.call("POST", path, status=503))
        await eventually(lambda: bool(world.agent.asked))
        await asyncio.to_thread(s3.kill)
        world.agent.flow.set()
        failed = await making
        assert failed["code"] == "storage_unavailable"
        assert "s3://archives" in failed["message"]
        assert "secret" not in failed["message"]
        (row,) = (await cloud.call("GET", path))["archives"]
        assert row["status"] == "failed"
        assert (await cloud.get(found["id"]))["ready"]
