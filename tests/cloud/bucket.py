"""A drill: a cloud that keeps archives in a bucket, a large one, and the bucket's end.

Not part of script/test: `script/drill archives`, or `pytest tests/cloud/bucket.py`.
BASTIDE_TEST_ARCHIVE_MIB (256) of random bytes are archived.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cloud.cloud import Cloud, own_cloud
from tests.cloud.processes import pids
from tests.cloud.test_lifecycle import until
from tests.s3 import S3Server

pytestmark = pytest.mark.cloud
MIB = 1024 * 1024
SIZE = int(os.environ.get("BASTIDE_TEST_ARCHIVE_MIB", "256"))
MOST_GROWN = 192 * MIB
"""What the api may take beyond what it had: parts of an upload, and pieces on their way."""
SECRET = "topsecret"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The bucket."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def bucket_cloud(s3: S3Server) -> Iterator[Cloud]:
    """A cloud that keeps its archives there."""
    with own_cloud(
        BASTIDE_ARCHIVES__URL=f"s3://{s3.bucket}/deep",
        BASTIDE_ARCHIVES__ENDPOINT=s3.endpoint,
        BASTIDE_ARCHIVES__REGION="us-east-1",
        BASTIDE_ARCHIVES__ACCESS_KEY_ID="key",
        BASTIDE_ARCHIVES__SECRET_ACCESS_KEY=SECRET,
    ) as cloud:
        yield cloud


def memory(cloud: Cloud, name: str = "VmHWM") -> int:
    """The most bytes of memory the api has had."""
    status = Path(f"/proc/{pids(cloud)['api'].pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def test_a_large_archive_in_a_bucket(bucket_cloud: Cloud, s3: S3Server) -> None:
    """Stored, put back and downloaded with bounded memory; a bucket that goes is told."""
    cloud = bucket_cloud
    figures: list[str] = []

    def timed(what: str, began: float) -> None:
        rate = SIZE / (time.monotonic() - began)
        figures.append(f"{what:9} {rate:7.0f} MiB/s, api at most {memory(cloud) // MIB} MiB")

    with cloud.client() as client:
        workspace = client.workspaces.create("debian-12", disk_size_mb=64 + 2 * SIZE).id
        run = client.workspaces.runtime(workspace).exec.run
        archives = client.workspaces.archives
        make = f"head -c {SIZE}M /dev/urandom > /srv/noise; sha256sum /srv/noise > /srv/sum; sync"
        run(make, timeout=600).check()
        before = memory(cloud, "VmRSS")
        began = time.monotonic()
        made = archives.create(workspace, paths=["/srv"])
        timed("archive", began)
        assert b"deep/arc_" in s3.ask("GET", f"/{s3.bucket}")[1]
        run("rm /srv/noise").check()
        began = time.monotonic()
        assert archives.restore(workspace, made.version) == 2
        timed("restore", began)
        run("sha256sum -c /srv/sum", timeout=600).check()
        began = time.monotonic()
        with archives.download(workspace, made.version) as (_, pieces):
            assert sum(map(len, pieces)) == made.size_bytes
        timed("download", began)
        sys.stdout.write("\n" + "\n".join(figures) + "\n")
        assert memory(cloud) - before < MOST_GROWN
        going = archives.create(workspace, paths=["/srv"], wait=False)
        until(lambda: b"<UploadId>" in s3.uploads(), "the upload has begun")
        s3.kill()
        until_failed(cloud, workspace, going.version)
        assert client.workspaces.get(workspace).ready
        logs = (cloud.settings.state_dir / "log").glob("*.log")
        assert not any(SECRET in log.read_text() for log in logs)
        assert SECRET not in cloud.run("config", "show").stdout
        client.workspaces.delete(workspace)


def until_failed(cloud: Cloud, workspace: str, version: int | str) -> None:
    """Wait until an archive has failed for want of its bucket."""
    with cloud.client() as client:
        archives = client.workspaces.archives
        end = time.monotonic() + 180
        while (found := archives.get(workspace, version)).status == "creating":
            assert time.monotonic() < end, found.message
            time.sleep(0.2)
        assert found.error is not None
        assert "s3://" in found.error.message
