"""Archives in a whole cloud: real files of real workspaces, stored, put back, and interrupted."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cloud.cloud import Cloud
from tests.cloud.processes import pids, until_whole
from tests.cloud.test_lifecycle import sh, state, until

from bastide.client import (
    Bastide,
    ConflictError,
    NotFoundError,
    Operation,
    ProvisioningFailed,
    ValidationError,
    Workspace,
)
from bastide.client._call import Call

pytestmark = pytest.mark.cloud
Make = Callable[..., Workspace]

TREE = """
import os, pathlib
tree = pathlib.Path("/srv/data")
(tree / "sub").mkdir(parents=True)
(tree / "file").write_bytes(b"content" * 1000)
os.chown(tree / "file", 1000, 33); (tree / "file").chmod(0o4751)
os.setxattr(tree / "file", "user.kept", b"\\0value")
os.link(tree / "file", tree / "sub" / "same")
(tree / "link").symlink_to("/etc/passwd"); os.chown(tree / "link", 5, 6, follow_symlinks=False)
(tree / "sub").chmod(0o2770)
with (tree / "sparse").open("wb") as f: f.seek(2 << 30); f.write(b"end")
(tree / "node_modules").mkdir(); (tree / "node_modules" / "x").write_text("x")
os.utime(tree / "file", (1500000000, 1500000000)); os.utime(tree / "sub", (1400000000, 1400000000))
"""
LOOK = """
import hashlib, json, os, stat, sys
found, first = {}, {}
for base, folders, files in os.walk(sys.argv[1]):
    for name in folders + files:
        path = os.path.join(base, name); info = os.lstat(path)
        item = [stat.filemode(info.st_mode), info.st_uid, info.st_gid]
        if stat.S_ISLNK(info.st_mode): item.append(os.readlink(path))
        elif stat.S_ISREG(info.st_mode):
            item += [info.st_size, int(info.st_mtime), info.st_blocks < 10000]
            item.append(first.setdefault(info.st_ino, path))
            item.append({n: os.getxattr(path, n).hex() for n in os.listxattr(path)})
            content = open(path, "rb").read() if info.st_size < 1 << 20 else b""
            item.append(hashlib.sha256(content).hexdigest())
        else: item.append(int(info.st_mtime) if name == "sub" else 0)
        found[path] = item
print(json.dumps(found, sort_keys=True))
"""
HOLES = """
with open("/srv/holes", "wb") as f:
    for number in range(17000): f.seek(number * 8192); f.write(b"x" * 4096)
    f.truncate(60 << 30)
"""
"""More holes than an archive keeps: the last one is sent as zeros, for minutes."""
NOISE = "head -c 100M /dev/urandom > /srv/noise; sync"


def python(client: Bastide, workspace: str, script: str, *args: str) -> str:
    """What a Python script prints inside."""
    runtime = client.workspaces.runtime(workspace)
    return runtime.exec.run(["python3", "-c", script, *args], timeout=120).check().stdout


def look(client: Bastide, workspace: str) -> dict[str, Any]:
    """Everything of the tree: kinds, modes, owners, sizes, times, links, holes, attributes."""
    found: dict[str, Any] = json.loads(python(client, workspace, LOOK, "/srv/data"))
    return found


def stored(cloud: Cloud) -> set[str]:
    """The files of archives, hidden ones too."""
    directory = cloud.settings.archives_dir
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


def test_a_tree_comes_back_as_it_was(
    cloud: Cloud, client: Bastide, make_workspace: Make, tmp_path: Path
) -> None:
    """By the command line: archived without excludes, downloaded, lost, put back, deleted."""
    before = stored(cloud)
    workspace = make_workspace(disk_size_mb=512).id
    python(client, workspace, TREE)
    tree = look(client, workspace)
    made = cloud.json("archive", "create", workspace, "first", "--path", "/srv/data",
                      "--exclude", "node_modules")  # fmt: skip
    assert (made["version"], made["status"]) == ("first", "ready")
    assert made["size_bytes"] < 2**20
    assert "first" in cloud.run("archive", "list", workspace).stdout
    assert made["sha256"] in cloud.run("archive", "get", workspace, "first").stdout
    target = tmp_path / "backup.tar.zst"
    target.with_name("backup.tar.zst.part").write_bytes(b"")
    cloud.run("archive", "download", workspace, "first", "--output", str(target))
    assert hashlib.sha256(target.read_bytes()).hexdigest() == made["sha256"]
    listing = subprocess.run(
        ["tar", "--zstd", "-tvf", str(target)], check=True, capture_output=True, text=True
    ).stdout
    assert "srv/data/link -> /etc/passwd" in listing
    assert "node_modules" not in listing
    sh(client, workspace, "rm -rf /srv/data/* && echo newer > /srv/data/file && echo m > /srv/mine")
    refused = cloud.run("archive", "restore", workspace, "first", check=False)
    assert refused.returncode == 2
    done = cloud.run("archive", "restore", workspace, "first", "--yes")
    assert "4 files" in done.stdout
    kept = {path: item for path, item in tree.items() if "node_modules" not in path}
    assert look(client, workspace) == kept
    assert sh(client, workspace, "cat /srv/mine") == "m\n"
    cloud.run("archive", "delete", workspace, "first", "--yes")
    assert stored(cloud) == before


def test_a_stopped_workspace_is_archived_and_begins_anew(
    cloud: Cloud, client: Bastide, make_workspace: Make
) -> None:
    """All files of a stopped one; another workspace begins with them, its command sees them."""
    workspace = make_workspace(disk_size_mb=512, cmd=["sleep", "1000"]).id
    python(client, workspace, TREE)
    tree = look(client, workspace)
    client.workspaces.stop(workspace)
    made = client.workspaces.archives.create(workspace)
    assert (made.version, made.consistency, made.vm_paths) == (1, "stopped", ["/"])
    assert state(client, workspace) == "stopped"
    client.workspaces.delete(workspace)
    until(lambda: state(client, workspace) == "gone", "it is deleted")
    assert [one.version for one in client.workspaces.archives.list(workspace)] == [1]
    source = {"workspace": workspace, "version": 1}
    command = ["sh", "-c", "cp /srv/data/file /root/seen; sleep 1000"]
    begun = make_workspace(config={"archive": source}, cmd=command)
    assert begun.resources is not None
    assert begun.resources.disk_size_mb == 512
    assert look(client, begun.id) == tree
    until(lambda: "content" in sh(client, begun.id, "cat /root/seen 2>&1; true"), "it was seen")
    assert "nameserver" in sh(client, begun.id, "cat /etc/resolv.conf")
    name = sh(client, begun.id, "hostname").strip()
    assert name in sh(client, begun.id, "cat /etc/hosts /etc/hostname")
    client.workspaces.archives.delete_all(workspace)


def test_an_api_killed_in_the_middle_makes_it_from_the_beginning(
    cloud: Cloud, client: Bastide, make_workspace: Make
) -> None:
    """Kill -9 of the api: the archive is made by the next one, whole, and nothing else is left."""
    before = stored(cloud)
    workspace = make_workspace(cpus=0.5, disk_size_mb=1024).id
    sh(client, workspace, NOISE)
    archives = client.workspaces.archives
    made = archives.create(workspace, paths=["/srv"], wait=False)
    until(lambda: stored(cloud) - before, "it is written")
    killed = {"api": pids(cloud)["api"]}
    assert killed["api"].signal(signal.SIGKILL)
    until_whole(cloud, killed)
    until(lambda: archives.get(workspace, made.version).status != "creating", "it is made")
    ready = archives.get(workspace, made.version)
    assert ready.status == "ready", ready.error
    (name,) = stored(cloud) - before
    file = cloud.settings.archives_dir / name
    with file.open("rb") as content:
        assert hashlib.file_digest(content, "sha256").hexdigest() == ready.sha256
    with archives.download(workspace, ready.version, start=5, sha256=ready.sha256) as (at, pieces):
        assert at == 5
        assert sum(map(len, pieces)) == file.stat().st_size - 5
    small = make_workspace(disk_size_mb=64).id
    with pytest.raises(ConflictError, match="disk of the workspace is full"):
        archives.restore(workspace, ready.version, into=small)
    archives.delete(workspace, ready.version)
    assert stored(cloud) == before


def test_a_workspace_deleted_in_the_middle_leaves_nothing(
    cloud: Cloud, client: Bastide, make_workspace: Make
) -> None:
    """The half-written file goes with it; the workspace is gone as fast as ever."""
    before = stored(cloud)
    workspace = make_workspace(disk_size_mb=256).id
    python(client, workspace, HOLES)
    client.workspaces.archives.create(workspace, paths=["/srv"], wait=False)
    until(lambda: stored(cloud) - before, "it is written")
    client.workspaces.delete(workspace)
    until(lambda: state(client, workspace) == "gone", "it is deleted")
    until(lambda: stored(cloud) == before, "nothing is left of it")
    assert client.workspaces.archives.list(workspace) == []


def test_refusals(client: Bastide, make_workspace: Make) -> None:
    """Paths that are not there or not the workspace's, and versions that do not exist."""
    workspace = make_workspace(memory_mb=128).id
    archives = client.workspaces.archives
    with pytest.raises(ValidationError, match="nothing at '/none'"):
        client._api.send(_waiting(workspace, {"vm_paths": ["/none"]}))
    with pytest.raises(ValidationError, match="not on the workspace's disk"):
        client._api.send(_waiting(workspace, {"vm_paths": ["/proc"]}))
    sh(client, workspace, "echo x > /root/file; ln -s /run /root/lost")
    made = archives.create(workspace, paths=["/root/file"])
    for dest in ("/proc", "/run/x", "/root/lost/x", "/etc/passwd"):
        with pytest.raises(ValidationError) as refused:
            archives.restore(workspace, made.version, dest=dest)
        assert refused.value.details["field"] == "dest"
    archives.delete(workspace, made.version)
    with pytest.raises(NotFoundError):
        archives.restore(workspace, 9)
    with pytest.raises(NotFoundError):
        archives.delete(workspace, 9)
    client.workspaces.pause(workspace)
    with pytest.raises(ConflictError, match="resume it, or stop it"):
        archives.create(workspace)


def test_a_restore_is_not_cut_by_deleting_its_archive(
    client: Bastide, make_workspace: Make
) -> None:
    """Deleted while it is put back, with and without its file: refused, and every byte is there."""
    workspace = make_workspace(cpus=0.25, disk_size_mb=1024).id
    sh(client, workspace, NOISE)
    digest = sh(client, workspace, "sha256sum < /srv/noise")
    archives = client.workspaces.archives
    made = archives.create(workspace, paths=["/srv"])
    told: list[str] = []

    def changed(now: Operation) -> None:
        told.append(now.message)
        if len(told) > 1:
            return  # by now it may be done
        for file in (False, True):
            with pytest.raises(ConflictError, match="is being put into") as refused:
                archives.delete(workspace, made.version, file=file)
            assert refused.value.details["workspaces"] == [workspace]

    assert archives.restore(workspace, made.version, dest="/again", on_change=changed) == 1
    assert told
    assert sh(client, workspace, "sha256sum < /again/srv/noise") == digest
    archives.delete(workspace, made.version)


def test_another_layout_is_told(client: Bastide, make_workspace: Make) -> None:
    """All files of a Debian do not go over a busybox: both images are named; its own image fits."""
    workspace = make_workspace(disk_size_mb=1024)
    archives = client.workspaces.archives
    made = archives.create(workspace.id)
    source = {"archive": {"workspace": workspace.id, "version": made.version}}
    other = client.workspaces.create("busybox", config=source, wait=False)
    with pytest.raises(ProvisioningFailed, match=f"image {workspace.image}, .* of busybox") as told:
        client.workspaces.wait_ready(other.id)
    assert "there is a directory of that name" in told.value.message
    client.workspaces.delete(other.id)
    archives.delete(workspace.id, made.version)


def _waiting(workspace: str, body: dict[str, Any]) -> Any:
    """A creation as the vendor's client asks for it: the answer comes when it is done."""
    return Call("POST", f"/workspace/{workspace}/archives", dict, json=body, timeout=120)
