"""Archives that grow too large, fail or are called off: it is told, and nothing is left."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import pytest
import zstandard
from tests.api.workspaces.archives import (
    CONTENT,
    archive,
    begun,
    failing,
    listed,
    stored,
    until,
)
from tests.api.workspaces.cloud import Cloud, World, eventually

from bastide.domain.machine import MachineState
from bastide.engine.agent import AgentRefused
from bastide.pipelines import transfer
from bastide.services import archive_files
from bastide.services.archive_files import ArchiveFiles


async def test_limits(world: World) -> None:
    """Counts and bytes are bounded, with figures; deleting makes room again."""
    few = world.settings.archives.model_copy(update={"max_per_workspace": 1})
    world.settings = world.settings.model_copy(update={"archives": few})
    async with world.cloud() as cloud:
        found = await cloud.create()
        await archive(cloud, found["id"])
        full = await cloud.call("POST", f"/workspace/{found['id']}/archives", status=409)
        assert full["code"] == "ARCHIVE_LIMIT_REACHED"
        assert (full["current"], full["max"]) == (1, 1)
        await cloud.call("DELETE", f"/workspace/{found['id']}/archives?delete_files=true")
        await archive(cloud, found["id"])
    none = world.settings.archives.model_copy(update={"account_mb": 0, "max_per_workspace": 9})
    world.settings = world.settings.model_copy(update={"archives": none})
    async with world.cloud() as cloud:
        full = await cloud.call("POST", f"/workspace/{found['id']}/archives", status=409)
        assert full["code"] == "ARCHIVE_LIMIT_REACHED"


async def test_one_that_grows_too_large_is_given_up(world: World) -> None:
    """A workspace that sends without end fills nothing."""
    small = world.settings.archives.model_copy(update={"max_mb": 1})
    world.settings = world.settings.model_copy(update={"archives": small})
    world.agent.pieces = [os.urandom(2**20) for _ in range(4)]
    async with world.cloud() as cloud:
        found = await cloud.create()
        refused = await cloud.call("POST", f"/workspace/{found['id']}/archives", status=409)
        assert "too large" in refused["message"]
        assert stored(world) == []
        (failed,) = await listed(cloud, found["id"])
        assert failed["status"] == "failed"
        assert failed["error"]["code"] == "archive_too_large"


async def test_a_workspace_that_sends_nothing_holds_no_place(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gets nowhere is given up, with the figures."""
    monkeypatch.setattr(transfer, "STALL", 0.0)
    found = await cloud.create()
    cloud.agent.flow.clear()
    failed = await cloud.call("POST", f"/workspace/{found['id']}/archives", status=503)
    assert "gets nowhere" in failed["message"]
    assert stored(cloud.world) == []


@pytest.mark.parametrize(
    ("refusal", "status", "words"),
    [
        (AgentRefused(404, "there is nothing at '/none'"), 422, "nothing at '/none'"),
        (AgentRefused(500, "unexpected"), 503, "unexpected"),
    ],
)
async def test_what_the_agent_refuses_is_told(
    cloud: Cloud, refusal: AgentRefused, status: int, words: str
) -> None:
    """A path that is not there is the caller's; the same version can be tried again."""
    found = await cloud.create()
    cloud.agent.refusal = refusal
    path = f"/workspace/{found['id']}/archives"
    refused = await cloud.call("POST", path, {"version": "v"}, status=status)
    assert words in refused["message"]
    assert stored(cloud.world) == []
    cloud.agent.refusal = None
    assert (await archive(cloud, found["id"], version="v"))["status"] == "ready"
    cloud.agent.refusal = AgentRefused(507, "the disk of the workspace is full")
    full = await cloud.call("POST", f"{path}/v/restore", status=409)
    assert "disk of the workspace is full" in full["message"]


async def test_a_broken_stream_leaves_nothing(cloud: Cloud) -> None:
    """The workspace stopped in the middle: no file, and the row says why."""
    found = await cloud.create()
    cloud.agent.broken = True
    failed = await cloud.call("POST", f"/workspace/{found['id']}/archives", status=503)
    assert "broke off" in failed["message"]
    assert stored(cloud.world) == []
    (row,) = await listed(cloud, found["id"])
    assert row["status"] == "failed"
    assert (await cloud.get(found["id"]))["ready"]
    refused = await cloud.http.get(f"/workspace/{found['id']}/archives/1/download")
    assert refused.status_code == 409


async def test_storage_that_goes_in_the_middle(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with the reason; nothing half-made is left once it is back."""
    found = await cloud.create()
    task = await begun(cloud, found["id"])
    failing(cloud).down = True
    cloud.agent.flow.set()
    answer = await cloud.http.get(f"/workspace/{found['id']}")
    assert answer.status_code == 200
    with pytest.raises(AssertionError, match="storage_unavailable"):
        await task
    failing(cloud).down = False
    assert stored(cloud.world) == []
    await archive(cloud, found["id"])
    failing(cloud).down = True
    path = f"/workspace/{found['id']}/archives"
    download = await cloud.http.get(f"{path}/2/download")
    assert download.status_code == 503
    refused = await cloud.call("DELETE", f"{path}/2?delete_file=true", status=503)
    assert "as soon as that is possible" in refused["message"]
    files = ArchiveFiles(cloud.services.database, cloud.world.depot)
    assert await files.sweep() == 0  # it is left alone for a while
    monkeypatch.setattr(archive_files, "PATIENCE", timedelta(minutes=-1))
    assert await files.sweep() == 1
    failing(cloud).down = False
    assert await files.sweep() == 1
    assert stored(cloud.world) == []
    assert await files.sweep() == 0


async def test_a_file_that_is_gone_is_told(cloud: Cloud) -> None:
    """Somebody emptied the directory: download and restore say so, deleting works."""
    found = await cloud.create()
    await archive(cloud, found["id"])
    (world_file,) = cloud.world.settings.archives_dir.iterdir()
    world_file.unlink()
    path = f"/workspace/{found['id']}/archives/1"
    gone = await cloud.call("GET", f"{path}/download", status=503)
    assert "not there any more" in gone["message"]
    await cloud.call("POST", f"{path}/restore", status=404)
    await cloud.call("DELETE", f"{path}?delete_file=true")


async def test_a_damaged_file_is_told(cloud: Cloud) -> None:
    """What was stored is checked when it is read back."""
    found = await cloud.create()
    await archive(cloud, found["id"])
    (file,) = cloud.world.settings.archives_dir.iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    failed = await cloud.call("POST", f"/workspace/{found['id']}/archives/1/restore", status=503)
    assert "archive" in failed["message"]
    assert not cloud.agent.unpacked


@pytest.mark.parametrize("destroyed", [False, True])
async def test_deleting_the_workspace_ends_it(cloud: Cloud, *, destroyed: bool) -> None:
    """The archive that was being made goes with it, or with its machine; a finished one stays."""
    found = await cloud.create()
    await archive(cloud, found["id"])
    task = await begun(cloud, found["id"])
    path = f"/workspace/{found['id']}"
    await cloud.call("DELETE", f"{path}/lifecycle" if destroyed else path)
    with pytest.raises(AssertionError):
        await task
    if not destroyed:
        await cloud.gone(found["id"])
    await eventually(lambda: len(stored(cloud.world)) == 1)
    assert [row["version"] for row in await listed(cloud, found["id"])] == [1]


@pytest.mark.parametrize("stopped", [False, True])
async def test_deleting_the_archive_cancels_it(cloud: Cloud, *, stopped: bool) -> None:
    """It ends within a second or two, nothing is left, and the workspace is as it was."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    if stopped:
        await cloud.call("POST", f"{path}/stop")
    task = await begun(cloud, found["id"])
    (making,) = await listed(cloud, found["id"])
    assert making["status"] == "creating"
    busy = await cloud.call("POST", f"{path}/pause", status=409)
    assert "being archived" in busy["message"]
    await cloud.call("DELETE", f"{path}/archives/1")
    with pytest.raises(AssertionError, match="given up"):
        await task
    assert stored(cloud.world) == []
    assert await listed(cloud, found["id"]) == []
    state = MachineState.STOPPED if stopped else MachineState.RUNNING
    assert cloud.engine.machines[found["id"]].status.state is state


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_control_plane_that_dies_in_the_middle(world: World, *, stopped: bool) -> None:
    """The next one makes it from the beginning; there is one file, whole."""
    async with world.cloud() as cloud:
        found = await cloud.create()
        if stopped:
            await cloud.call("POST", f"/workspace/{found['id']}/stop")
        task = await begun(cloud, found["id"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    world.agent.flow.set()
    async with world.cloud() as cloud:
        path = f"/workspace/{found['id']}/archives/1"
        await until(cloud, path, lambda found: found["status"] == "ready")
        assert len(stored(world)) == 1
        answer = await cloud.http.get(f"{path}/download")
        assert zstandard.ZstdDecompressor().decompressobj().decompress(answer.content) == CONTENT
        state = MachineState.STOPPED if stopped else MachineState.RUNNING
        await eventually(lambda: cloud.engine.machines[found["id"]].status.state is state)
