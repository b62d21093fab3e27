"""Both depots: the common suite, and what is each one's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.depot import MIB, NAME, DepotSuite, content, fail, store
from tests.s3 import S3Server

from bastide.depot.contract import Depot, DepotError, DepotFull
from bastide.depot.directory import DirectoryDepot
from bastide.depot.place import depot_of
from bastide.depot.s3 import S3Depot
from bastide.settings import Archives, Settings

SHORT = timedelta(milliseconds=300)


class TestDirectory(DepotSuite):
    """The common suite on a directory."""

    @pytest.fixture
    def depot(self, tmp_path: Path) -> Depot:
        return DirectoryDepot(tmp_path / "archives", reserve=0)


class TestS3(DepotSuite):
    """The common suite on S3."""

    @pytest.fixture
    def depot(self, s3: S3Server) -> Depot:
        return S3Depot(s3.place())


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests; each has its own prefix."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


async def test_a_failed_writer_leaves_no_file_at_all(tmp_path: Path) -> None:
    """Not even a hidden one, and what a dead process left goes with the next draft."""
    depot = DirectoryDepot(tmp_path, reserve=0)
    (tmp_path / f".{NAME}.dead").write_bytes(b"left")
    with pytest.raises(RuntimeError):
        await fail(depot, b"x")
    assert names(tmp_path) == []


async def test_files_are_private(tmp_path: Path) -> None:
    """Nobody but the api's user reads an archive."""
    await store(DirectoryDepot(tmp_path, reserve=0), b"x")
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


async def test_the_last_room_of_the_host_is_kept(tmp_path: Path) -> None:
    """A draft that would take it fails with the figures, and leaves nothing."""
    depot = DirectoryDepot(tmp_path, reserve=2**60)
    with pytest.raises(DepotFull, match="stay free"):
        await store(depot, b"x")
    assert names(tmp_path) == []


async def test_a_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    """An unusable place is a `DepotError` with its path, not a crash."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DepotError, match="file"):
        await store(DirectoryDepot(tmp_path / "file"), b"x")


async def test_a_server_that_goes_in_the_middle_is_told(tmp_path: Path) -> None:
    """The writer learns it within the retries; it does not hang."""
    with S3Server(tmp_path) as server:
        depot = S3Depot(server.place(), retry=SHORT)

        async def write() -> None:
            async with asyncio.timeout(60), depot.draft(NAME) as draft:
                await draft.write(os.urandom(MIB))
                await asyncio.to_thread(server.kill)
                for _ in range(200):
                    await draft.write(os.urandom(MIB))
                await draft.publish()

        with pytest.raises(DepotError, match="s3://archives"):
            await write()
        with pytest.raises(DepotError):
            await depot.remove(NAME)
        with pytest.raises(DepotError):
            await content(depot)


async def test_a_bucket_that_is_not_there_is_told(s3: S3Server) -> None:
    """Writing names the bucket."""
    place = s3.place()
    depot = S3Depot(replace(place, name="no-such-bucket"))
    with pytest.raises(DepotError, match="no-such-bucket"):
        await store(depot, b"x" * MIB)


async def test_a_failed_upload_is_aborted(s3: S3Server) -> None:
    """No parts stay behind in the bucket."""
    with pytest.raises(RuntimeError):
        await fail(S3Depot(s3.place()), *(os.urandom(MIB) for _ in range(40)))
    assert b"<UploadId>" not in s3.uploads()


async def test_the_settings_choose(s3: S3Server, tmp_path: Path) -> None:
    """`archives.url` names a bucket with a prefix; without it there is a directory."""
    plain = Settings(state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    assert isinstance(depot_of(plain), DirectoryDepot)
    named = Archives(
        url="s3://archives/deep/place",
        endpoint=s3.endpoint,
        region="us-east-1",
        access_key_id="k",
        secret_access_key="s",
    )
    await store(depot_of(plain.model_copy(update={"archives": named})), b"x")
    assert b"deep/place/arc_0123456789ab.tar.zst" in s3.ask("GET", "/archives")[1]
    assert "secret" not in repr(s3.place())


def names(directory: Path) -> list[str]:
    """What is in a directory, hidden files included."""
    return sorted(path.name for path in directory.iterdir())
