"""Archives on their way back: who reads one, what is refused, how far it is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.api.workspaces.archives import CONTENT, archive, key_of, listed, stored, until
from tests.api.workspaces.cloud import Cloud, eventually

from bastide.domain.scope import Scope
from bastide.engine.agent import AgentRefused


async def restoring(cloud: Cloud, source: str, into: str, **body: Any) -> asyncio.Task[Any]:
    """A restore of version 1 that goes on until the agent's flow does."""
    cloud.agent.flow.clear()
    before = len(cloud.agent.policies)
    url = f"/workspace/{source}/archives/1/restore"
    task = asyncio.create_task(cloud.call("POST", url, {"workspace": into, **body}))
    await eventually(lambda: len(cloud.agent.policies) > before or task.done())
    return task


@pytest.mark.parametrize("query", ["/1", "/1?delete_file=true", "", "?delete_files=true"])
async def test_an_archive_is_not_deleted_while_it_is_restored(cloud: Cloud, query: str) -> None:
    """409 with who reads it; the restore ends well, and then it can be deleted."""
    one, two = await cloud.create(), await cloud.create()
    await archive(cloud, one["id"])
    task = await restoring(cloud, one["id"], two["id"])
    path = f"/workspace/{one['id']}/archives{query}"
    refused = await cloud.call("DELETE", path, status=409)
    assert two["id"] in refused["message"]
    assert (refused["code"], refused["details"]["state"]) == ("conflict", "in_use")
    assert refused["details"]["workspaces"] == [two["id"]]
    assert len(await listed(cloud, one["id"])) == 1
    cloud.agent.flow.set()
    assert (await task)["files_restored"] == 7
    assert cloud.agent.unpacked == [(two["id"], "/", CONTENT)]
    assert (await cloud.call("DELETE", path))["deleted"] == 1


async def test_an_archive_is_not_deleted_while_a_workspace_begins_with_it(cloud: Cloud) -> None:
    """Nor then; once the new workspace is deleted in the middle nothing reads it any more."""
    one = await cloud.create()
    await archive(cloud, one["id"])
    cloud.agent.flow.clear()
    source = {"archive": {"workspace": one["id"], "version": 1}}
    two = (await cloud.call("POST", "/workspace", {"config": source}, status=201))["workspace"]
    path = f"/workspace/{one['id']}/archives/1?delete_file=true"
    assert two["id"] in (await cloud.call("DELETE", path, status=409))["message"]
    await cloud.call("DELETE", f"/workspace/{two['id']}")
    await cloud.call("DELETE", path)
    assert stored(cloud.world) == []


async def test_of_deleting_and_restoring_one_wins(cloud: Cloud) -> None:
    """Asked for at once, time and again: either the files are put back or nothing is begun."""
    one, two = await cloud.create(), await cloud.create()
    path = f"/workspace/{one['id']}/archives"
    source = {"archive": {"workspace": one["id"], "version": 1}}
    for _ in range(10):
        await archive(cloud, one["id"], version=1)
        before = len(cloud.agent.unpacked)
        restored, begun, deleted = await asyncio.gather(
            cloud.http.post(f"{path}/1/restore", json={"workspace": two["id"]}),
            cloud.http.post("/workspace", json={"config": source, "wait_ready": True}),
            cloud.http.delete(f"{path}/1?delete_file=true"),
        )
        assert restored.status_code in {200, 404}, restored.text
        assert "archive was deleted" not in restored.text  # what was begun is not cut
        assert begun.status_code in {201, 404, 409}, begun.text
        assert deleted.status_code in {200, 409}, deleted.text
        read = [restored.status_code == 200, begun.status_code == 201]
        assert len(cloud.agent.unpacked) == before + sum(read)
        if deleted.status_code == 409:
            assert any(read)
            await cloud.call("DELETE", f"{path}/1?delete_file=true")
        if begun.status_code == 201:
            await cloud.call("DELETE", f"/workspace/{begun.json()['workspace']['id']}")
    assert stored(cloud.world) == []


async def test_a_creation_is_not_retried_without_its_archive(cloud: Cloud) -> None:
    """Its archive was deleted after it failed: the retry says so and begins nothing."""
    one = await cloud.create()
    await archive(cloud, one["id"])
    cloud.agent.refusal = AgentRefused(400, "'bin': there is a directory of that name in dest")
    source = {"config": {"archive": {"workspace": one["id"], "version": 1}}, "wait_ready": True}
    failed = await cloud.call("POST", "/workspace", {**source, "image": "busybox:1"}, status=422)
    assert "there is a directory of that name" in failed["message"]
    assert "archive is of the image debian-12, and this workspace of busybox:1" in failed["message"]
    two = failed["details"]["workspace_id"]
    await cloud.call("DELETE", f"/workspace/{one['id']}/archives/1?delete_file=true")
    refused = await cloud.call("POST", f"/workspace/{two}/provisioning/retry", status=409)
    assert "was deleted" in refused["message"]
    assert (await cloud.get(two))["provisioning"]["state"] == "failed"


async def test_a_narrow_credential_is_not_told_who_reads(cloud: Cloud) -> None:
    """The token of the archive's workspace sees that another one reads it, and not which."""
    one, two = await cloud.create(), await cloud.create()
    await archive(cloud, one["id"])
    narrow = await key_of(cloud, Scope.WORKSPACE, workspace=one["id"])
    task = await restoring(cloud, one["id"], two["id"])
    path = f"/workspace/{one['id']}/archives/1"
    refused = await cloud.http.delete(path, headers=narrow)
    assert refused.status_code == 409
    assert "another workspace" in refused.json()["message"]
    assert two["id"] not in refused.text
    cloud.agent.flow.set()
    await task


@pytest.mark.parametrize(
    ("dest", "words"),
    [
        ("/proc", "/proc is not on it"),
        ("/sys/kernel", "/sys is not on it"),
        ("/dev", "/dev is not on it"),
        ("/run/x", "/run is not on it"),
        ("//.bastide/", "/.bastide is not on it"),
        ("/a/../proc", '".."'),
        ("relative", "begins with"),
    ],
)
async def test_no_restore_outside_the_disk(cloud: Cloud, dest: str, words: str) -> None:
    """422 that names the field and says why, before anything is begun."""
    found = await cloud.create()
    await archive(cloud, found["id"])
    url = f"/workspace/{found['id']}/archives/1/restore"
    refused = await cloud.call("POST", url, {"dest": dest}, status=422)
    assert refused["details"]["field"] == "dest"
    assert words in refused["message"]
    assert not cloud.agent.unpacked


async def test_what_the_agent_refuses_of_a_restore_is_told(cloud: Cloud) -> None:
    """A wrong destination is the caller's, files that do not fit are a conflict, both with why."""
    found = await cloud.create()
    await archive(cloud, found["id"])
    url = f"/workspace/{found['id']}/archives/1/restore"
    cloud.agent.refusal = AgentRefused(400, "dest '/etc/passwd' is no directory", "dest")
    refused = await cloud.call("POST", url, {"dest": "/etc/passwd"}, status=422)
    assert refused["details"]["field"] == "dest"
    assert "is no directory" in refused["message"]
    cloud.agent.refusal = AgentRefused(400, "'bin': there is a directory of that name in dest")
    refused = await cloud.call("POST", url, status=409)
    assert "there is a directory of that name" in refused["message"]
    assert "image" not in refused["message"]
    cloud.agent.refusal = AgentRefused(503, "'x' cannot be written now")
    assert (await cloud.call("POST", url, status=503))["details"]["reason"] == "UNPACK_FAILED"


async def test_a_restore_can_be_followed(cloud: Cloud) -> None:
    """With `wait` false it answers at once; its operation tells bytes done of all, and the end."""
    found = await cloud.create()
    await archive(cloud, found["id"])
    path = f"/workspace/{found['id']}"
    cloud.agent.flow.clear()
    begun = await cloud.call(
        "POST", f"{path}/archives/1/restore", {"dest": "/x", "wait": False}, status=202
    )
    assert (begun["id"], begun["files_restored"]) == (found["id"], None)
    operation = f"{path}/operations/{begun['operation']['id']}"
    await until(cloud, operation, lambda got: "of 1 MiB of files" in got["operation"]["message"])
    going = (await cloud.lifecycle(found["id"]))["operation"]
    assert (going["kind"], going["state"]) == ("unpack", "running")
    assert "Restoring version 1" in going["message"]
    cloud.agent.flow.set()
    await until(cloud, operation, lambda got: got["operation"]["state"] == "done")
    ended = (await cloud.call("GET", operation))["operation"]
    assert (ended["files_restored"], ended["error"]) == (7, None)
    assert (await cloud.lifecycle(found["id"]))["operation"] == ended
    cloud.agent.refusal = AgentRefused(507, "the disk of the workspace is full")
    begun = await cloud.call("POST", f"{path}/archives/1/restore", {"wait": False}, status=202)
    operation = f"{path}/operations/{begun['operation']['id']}"
    await until(cloud, operation, lambda got: got["operation"]["state"] == "failed")
    error = (await cloud.call("GET", operation))["operation"]["error"]
    assert (error["code"], error["status"]) == ("conflict", 409)
    assert "do not fit" in error["message"]


async def test_an_operation_is_its_workspace_s_alone(cloud: Cloud) -> None:
    """By the id of another workspace, or one that there is not, it is 404."""
    one, two = await cloud.create(), await cloud.create()
    await archive(cloud, one["id"])
    begun = await cloud.call(
        "POST", f"/workspace/{one['id']}/archives/1/restore", {"wait": False}, status=202
    )
    operation = begun["operation"]["id"]
    await cloud.call("GET", f"/workspace/{one['id']}/operations/{operation}")
    await cloud.call("GET", f"/workspace/{two['id']}/operations/{operation}", status=404)
    for wrong in ("op_000000000000", "op_", "%00", "x" * 200):
        await cloud.call("GET", f"/workspace/{one['id']}/operations/{wrong}", status=404)


async def test_a_creation_from_an_archive_tells_how_far_it_is(cloud: Cloud) -> None:
    """Its message has the bytes done of all."""
    one = await cloud.create()
    await archive(cloud, one["id"])
    cloud.agent.flow.clear()
    source = {"archive": {"workspace": one["id"], "version": 1}}
    two = (await cloud.call("POST", "/workspace", {"config": source}, status=201))["workspace"]
    told = f"Archive {one['id']}:1: 0 of 1 MiB of files"
    await cloud.until(two["id"], lambda now: now["provisioning"]["message"].startswith(told))
    cloud.agent.flow.set()
    await cloud.until(two["id"], lambda now: bool(now["ready"]))
