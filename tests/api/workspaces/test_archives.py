"""Archives over the API: what they answer, refuse and keep."""

from __future__ import annotations

import hashlib
from typing import Any

import zstandard
from tests.api.workspaces.archives import (
    CONTENT,
    archive,
    key_of,
    listed,
    stored,
    stranger_of,
    until,
)
from tests.api.workspaces.cloud import Cloud

from bastide.domain.machine import MachineState
from bastide.domain.scope import Scope


async def test_an_archive_is_stored_listed_and_downloaded(cloud: Cloud) -> None:
    """Without a body everything is archived as version 1; size and SHA-256 are the file's."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/archives"
    made = await archive(cloud, found["id"])
    assert (made["version"], made["status"], made["format"]) == (1, "ready", "tar")
    assert (made["vm_paths"], made["consistency"]) == (["/"], "running")
    assert made["tar_bytes"] == len(CONTENT)
    assert cloud.agent.asked == [(found["id"], ["/"], [])]
    assert await listed(cloud, found["id"]) == [made["archive"]]
    one = await cloud.call("GET", f"{path}/1")
    assert one["archive"] == made["archive"]
    assert one["sha256"] == made["sha256"]
    answer = await cloud.http.get(f"{path}/1/download")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zstd"
    assert hashlib.sha256(answer.content).hexdigest() == made["sha256"]
    assert len(answer.content) == made["size_bytes"]
    assert zstandard.ZstdDecompressor().decompressobj().decompress(answer.content) == CONTENT
    assert (await cloud.get(found["id"]))["status"] == "running"


async def test_ranges_of_a_download(cloud: Cloud) -> None:
    """A broken download goes on where it ended, and only of the same file."""
    found = await cloud.create()
    made = await archive(cloud, found["id"])
    url = f"/workspace/{found['id']}/archives/1/download"
    whole = (await cloud.http.get(url)).content
    etag = f'"{made["sha256"]}"'
    for header, part in (
        ("bytes=3-9", whole[3:10]),
        ("bytes=5-", whole[5:]),
        ("bytes=-4", whole[-4:]),
    ):
        answer = await cloud.http.get(url, headers={"Range": header, "If-Range": etag})
        assert answer.status_code == 206
        assert answer.content == part
    answer = await cloud.http.get(url, headers={"Range": "bytes=3-9"})
    assert answer.headers["content-range"] == f"bytes 3-9/{len(whole)}"
    for header in ("bytes=9-3", "lines=1-2", "bytes=-", "bytes=0-1,3-4"):
        assert (await cloud.http.get(url, headers={"Range": header})).status_code == 200
    other = {"Range": "bytes=3-9", "If-Range": '"another"'}
    assert (await cloud.http.get(url, headers=other)).content == whole
    beyond = await cloud.http.get(url, headers={"Range": f"bytes={len(whole)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(whole)}"


async def test_the_head_of_a_download(cloud: Cloud) -> None:
    """Size and ETag of the whole file without the file, whatever range is named."""
    found = await cloud.create()
    made = await archive(cloud, found["id"])
    url = f"/workspace/{found['id']}/archives/1/download"
    for headers in ({}, {"Range": "bytes=3-9"}, {"Range": f"bytes={made['size_bytes']}-"}):
        answer = await cloud.http.head(url, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == str(made["size_bytes"])
        assert answer.headers["etag"] == f'"{made["sha256"]}"'
        assert answer.headers["content-type"] == "application/zstd"
    assert (await cloud.http.head(url.replace("/1/", "/9/"))).status_code == 404


async def test_versions_paths_and_excludes(cloud: Cloud) -> None:
    """A version is the next number, a chosen number, or a word; one is not given twice."""
    found = await cloud.create()
    wanted = {"vm_paths": ["/etc/", "/root"], "exclude_vm_paths": ["/root/.cache", "node_modules"]}
    first = await archive(cloud, found["id"], version="before-upgrade", format="tar", **wanted)
    assert first["version"] == "before-upgrade"
    assert cloud.agent.asked[0][1:] == (["/etc", "/root"], ["/root/.cache", "node_modules"])
    assert (await archive(cloud, found["id"], version=7))["version"] == 7
    assert (await archive(cloud, found["id"]))["version"] == 8
    assert (await cloud.call("GET", f"/workspace/{found['id']}/archives/7"))["version"] == 7
    taken = await cloud.call(
        "POST", f"/workspace/{found['id']}/archives", {"version": "7"}, status=409
    )
    assert "version 7 already" in taken["message"]


async def test_wrong_fields_are_named(cloud: Cloud) -> None:
    """422 with the field, before anything is begun."""
    found = await cloud.create()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"version": "../x"}, "version"),
        ({"version": True}, "version"),
        ({"version": -1}, "version"),
        ({"version": "x" * 65}, "version"),
        ({"format": "zip"}, "format"),
        ({"vm_paths": "/etc"}, "vm_paths"),
        ({"vm_paths": ["etc"]}, "vm_paths.0"),
        ({"vm_paths": ["/a/../b"]}, "vm_paths.0"),
        ({"vm_paths": ["/a\0b"]}, "vm_paths.0"),
        ({"vm_paths": ["/x"] * 201}, "vm_paths"),
        ({"exclude_vm_paths": [""]}, "exclude_vm_paths.0"),
        ({"exclude_vm_paths": [5]}, "exclude_vm_paths.0"),
        ({"wait": "no"}, "wait"),
    ]
    for body, field in wrong:
        refused = await cloud.call("POST", f"/workspace/{found['id']}/archives", body, status=422)
        assert refused["details"]["field"] == field
    assert not cloud.agent.asked


async def test_a_stopped_workspace_is_booted_dark_and_stopped_again(cloud: Cloud) -> None:
    """Its files are read by the agent alone: no command, no network, and it is stopped after."""
    found = await cloud.create(config={"cmd": ["sleep", "1"], "env": {"SECRET": "x"}})
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/stop")
    made = await archive(cloud, found["id"])
    assert made["consistency"] == "stopped"
    (policy,) = cloud.agent.policies
    assert not policy.allow_internet
    assert not policy.public_access
    machine = cloud.engine.machines[found["id"]]
    assert machine.spec.cmd == ()
    assert not machine.spec.env
    assert machine.status.state is MachineState.STOPPED
    after = await cloud.get(found["id"])
    assert after["status"] == "stopped"
    assert after["info"]["user_requested_stop"]
    await cloud.call("POST", f"{path}/archives/1/restore")
    assert (await cloud.get(found["id"]))["status"] == "stopped"
    assert cloud.agent.unpacked == [(found["id"], "/", CONTENT)]
    await cloud.call("POST", f"{path}/start")
    assert cloud.engine.machines[found["id"]].spec.cmd == ("sleep", "1")


async def test_a_paused_or_destroyed_one_is_refused_with_what_to_do(cloud: Cloud) -> None:
    """Nothing in a frozen workspace can read files, and a destroyed one has none."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}"
    await cloud.call("POST", f"{path}/pause")
    refused = await cloud.call("POST", f"{path}/archives", status=409)
    assert "resume it, or stop it" in refused["message"]
    await cloud.call("DELETE", f"{path}/lifecycle")
    refused = await cloud.call("POST", f"{path}/archives", status=409)
    assert "no disk" in refused["message"]
    assert await listed(cloud, found["id"]) == []


async def test_restore_into_another_workspace_and_place(cloud: Cloud) -> None:
    """The files go where they are asked to; the count is told."""
    one, two = await cloud.create(), await cloud.create()
    await archive(cloud, one["id"])
    body = {"workspace": two["slug"], "dest": "/backup/"}
    done = await cloud.call("POST", f"/workspace/{one['id']}/archives/1/restore", body)
    assert (done["id"], done["version"], done["files_restored"]) == (two["id"], 1, 7)
    assert cloud.agent.unpacked == [(two["id"], "/backup", CONTENT)]


async def test_a_workspace_begins_with_an_archive(cloud: Cloud) -> None:
    """Files come before the owner's command; image and disk are those of the archive."""
    one = await cloud.create(config={"disk_size_mb": 8192})
    await archive(cloud, one["id"])
    await cloud.call("DELETE", f"/workspace/{one['id']}")
    await cloud.gone(one["id"])
    source = {"archive": {"workspace": one["id"], "version": 1}, "cmd": ["app"]}
    two = await cloud.create(config=source)
    assert two["resources"]["disk_size_mb"] == 8192
    assert cloud.agent.unpacked == [(two["id"], "/", CONTENT)]
    assert not cloud.agent.policies[-1].allow_internet
    steps = [step for step, machine in cloud.engine.calls if machine == two["id"]]
    assert steps.index("stop", steps.index("start")) < len(steps) - 1
    machine = cloud.engine.machines[two["id"]]
    assert machine.spec.cmd == ("app",)
    assert machine.policy.allow_internet
    wrong = {"archive": {"workspace": one["id"], "version": 2}}
    await cloud.call("POST", "/workspace", {"config": wrong}, status=404)
    refused = await cloud.call("PUT", f"/workspace/{two['id']}", {"config": source}, status=422)
    assert refused["details"]["field"] == "config.archive"


async def test_archives_outlive_their_workspace(cloud: Cloud) -> None:
    """They are listed, downloaded and deleted by the id of the deleted workspace."""
    found = await cloud.create()
    made = await archive(cloud, found["id"])
    await cloud.call("DELETE", f"/workspace/{found['id']}")
    await cloud.gone(found["id"])
    path = f"/workspace/{found['id']}/archives"
    assert await listed(cloud, found["id"]) == [made["archive"]]
    assert (await cloud.http.get(f"{path}/1/download")).status_code == 200
    await cloud.call("POST", f"{path}/1/restore", status=404)
    other = await cloud.create()
    await cloud.call("POST", f"{path}/1/restore", {"workspace": other["id"]})
    await cloud.call("DELETE", f"{path}/1?delete_file=true")
    assert stored(cloud.world) == []
    assert await listed(cloud, found["id"]) == []


async def test_deleting_with_and_without_the_file(cloud: Cloud) -> None:
    """Without it the file stays and counts; with it the bytes are gone, whenever it is asked."""
    found = await cloud.create()
    path = f"/workspace/{found['id']}/archives"
    for _ in range(3):
        await archive(cloud, found["id"])
    assert len(stored(cloud.world)) == 3
    assert (await cloud.call("DELETE", f"{path}/1"))["version"] == 1
    await cloud.call("GET", f"{path}/1", status=404)
    await cloud.call("DELETE", f"{path}/1", status=404)
    assert len(stored(cloud.world)) == 3
    taken = await cloud.call("POST", path, {"version": 1}, status=409)
    assert "delete_file=true" in taken["message"]
    await cloud.call("DELETE", f"{path}/1?delete_file=true")
    assert len(stored(cloud.world)) == 2
    assert (await cloud.call("DELETE", path))["deleted"] == 2
    assert await listed(cloud, found["id"]) == []
    assert len(stored(cloud.world)) == 2
    assert (await cloud.call("DELETE", f"{path}?delete_files=true"))["deleted"] == 2
    assert stored(cloud.world) == []
    assert (await cloud.call("DELETE", f"{path}?delete_files=true"))["deleted"] == 0


async def test_another_account_sees_none_of_it(cloud: Cloud) -> None:
    """Every call is 404 for a stranger, also for the archive of a deleted workspace."""
    found = await cloud.create()
    await archive(cloud, found["id"])
    stranger = await stranger_of(cloud)
    source = {"workspace": found["id"], "version": 1}
    for deleted in (False, True):
        if deleted:
            await cloud.call("DELETE", f"/workspace/{found['id']}")
            await cloud.gone(found["id"])
        path = f"/workspace/{found['id']}/archives"
        for method, url, body in (
            ("GET", path, None),
            ("POST", path, None),
            ("GET", f"{path}/1", None),
            ("GET", f"{path}/1/download", None),
            ("POST", f"{path}/1/restore", None),
            ("DELETE", f"{path}/1?delete_file=true", None),
            ("DELETE", f"{path}?delete_files=true", None),
            ("POST", "/workspace", {"config": {"archive": source}}),
        ):
            answer = await cloud.http.request(method, url, json=body, headers=stranger)
            assert answer.status_code == 404, (method, url)
    assert len(stored(cloud.world)) == 1


async def test_all_archives_are_found(cloud: Cloud) -> None:
    """Newest first, page by page, with their workspaces, also those that are deleted."""
    one, two = await cloud.create(slug="one"), await cloud.create(namespace="other")
    await archive(cloud, one["id"])
    await archive(cloud, two["id"])
    await archive(cloud, one["id"])
    narrow = await key_of(cloud, Scope.WORKSPACE, workspace=one["id"])
    await cloud.call("DELETE", f"/workspace/{one['id']}")
    await cloud.gone(one["id"])
    found = await cloud.call("GET", "/archives?limit=2")
    assert (found["total"], found["page"], found["limit"]) == (3, 1, 2)
    rest = await cloud.call("GET", "/archives?limit=2&page=2")
    shown = [
        (item["workspace_id"], item["version"], item["workspace_slug"], item["workspace_deleted"])
        for item in (*found["archives"], *rest["archives"])
    ]
    assert shown == [
        (one["id"], 2, "one", True),
        (two["id"], 1, two["slug"], False),
        (one["id"], 1, "one", True),
    ]
    assert rest["archives"][0]["workspace_name"] == one["name"]
    assert (await cloud.call("GET", "/archives?namespace=other"))["total"] == 1
    await cloud.call("GET", "/archives?page=0", status=422)
    for headers, expected in (
        (await stranger_of(cloud), 0),
        (await key_of(cloud, Scope.NAMESPACE, namespace="other"), 1),
        (narrow, 2),
    ):
        answer = await cloud.http.get("/archives", headers=headers)
        assert (answer.status_code, answer.json()["total"]) == (200, expected)
    billing = await key_of(cloud, Scope.BILLING)
    assert (await cloud.http.get("/archives", headers=billing)).status_code == 403


async def test_progress_can_be_followed(cloud: Cloud) -> None:
    """With `wait` false the answer comes at once; the message tells how far it is."""
    found = await cloud.create()
    cloud.agent.flow.clear()
    made = await archive(cloud, found["id"], wait=False)
    assert made["status"] == "creating"
    path = f"/workspace/{found['id']}/archives/1"
    await until(cloud, path, lambda found: "MiB" in (found["message"] or ""))
    cloud.agent.flow.set()
    await until(cloud, path, lambda found: found["status"] == "ready")
