"""`bastide archive` through a scripted server."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import pytest
from tests.unit.client.server import Server, good, workspace
from typer.testing import CliRunner, Result

from bastide.cli.app import app
from bastide.cli.fault import Fault

PATH = "/workspace/ws_1/archives/1"
WHOLE = b"the first half, and the rest"


def archive(*args: str) -> Result:
    """`bastide archive ARGS`, which must succeed."""
    done = CliRunner().invoke(app, ["archive", *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def stored(server: Server, *answers: httpx.Response) -> None:
    """An archive whose file is sent as told."""
    shown = {
        "version": 1, "status": "ready", "workspace_id": "ws_1", "name": "ws_1-1.tar.zst",
        "size_bytes": len(WHOLE), "sha256": hashlib.sha256(WHOLE).hexdigest(),
    }  # fmt: skip
    server.on("GET", PATH, good(archive=shown))
    server.on("GET", f"{PATH}/download", *answers)


def sent(status: int, content: bytes) -> httpx.Response:
    """A body that is read as it comes."""
    return httpx.Response(status, stream=httpx.ByteStream(content))


def test_a_download_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    """Only the rest is asked for, of the same file; the whole is checked and put in place."""
    stored(server, sent(206, WHOLE[14:]))
    target = tmp_path / "web.tar.zst"
    draft = tmp_path / "web.tar.zst.part"
    draft.write_bytes(WHOLE[:14])
    done = archive("download", "ws_1", "1", "-o", str(target))
    assert done.stdout == f"{target}\n"
    assert "28 B downloaded" in done.stderr
    assert target.read_bytes() == WHOLE
    assert not draft.exists()
    asked = server.requests[-1].headers
    digest = hashlib.sha256(WHOLE).hexdigest()
    assert (asked["range"], asked["if-range"]) == ("bytes=14-", f'"{digest}"')


def test_what_is_not_what_is_stored_is_thrown_away(server: Server, tmp_path: Path) -> None:
    """A rest that does not fit what was there leaves no file, and says so."""
    stored(server, sent(206, WHOLE[14:]))
    target = tmp_path / "web.tar.zst"
    (tmp_path / "web.tar.zst.part").write_bytes(b"something else")
    with pytest.raises(Fault, match="SHA-256"):
        archive("download", "ws_1", "1", "-o", str(target))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_directory_takes_the_file_under_its_name(
    server: Server, tmp_path: Path, slash: str
) -> None:
    """As wget -P does; nothing else is left there."""
    stored(server, sent(200, WHOLE))
    done = archive("download", "ws_1", "1", "-o", f"{tmp_path}{slash}")
    target = tmp_path / "ws_1-1.tar.zst"
    assert done.stdout == f"{target}\n"
    assert target.read_bytes() == WHOLE
    assert list(tmp_path.iterdir()) == [target]
    assert not tmp_path.with_name(f"{tmp_path.name}.part").exists()


@pytest.mark.parametrize("output", ["none/", "none/file", "none/deep/"])
def test_where_nothing_can_be_put_is_told_first(
    server: Server, tmp_path: Path, output: str
) -> None:
    """A directory that is not there: nothing is downloaded, nothing is left."""
    stored(server, sent(200, WHOLE))
    with pytest.raises(Fault, match="there is no directory"):
        archive("download", "ws_1", "1", "-o", f"{tmp_path}/{output}")
    assert server.paths() == [f"GET {PATH}"]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_the_place_of_the_file_is_told_first(server: Server, tmp_path: Path) -> None:
    """Also when it has the archive's own name."""
    stored(server, sent(200, WHOLE))
    (tmp_path / "ws_1-1.tar.zst").mkdir()
    with pytest.raises(Fault, match="is a directory"):
        archive("download", "ws_1", "1", "-o", str(tmp_path))
    assert server.paths() == [f"GET {PATH}"]


def test_what_cannot_be_put_in_place_is_kept_and_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download is whole and its place is not to be had: a sentence, and the part goes on."""
    stored(server, sent(200, WHOLE))

    def refuse(draft: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(draft), None, str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    target = tmp_path / "web"
    with pytest.raises(Fault, match="cannot be written: Permission denied") as fault:
        archive("download", "ws_1", "1", "-o", str(target))
    draft = tmp_path / "web.part"
    assert str(draft) in (fault.value.todo or "")
    monkeypatch.undo()
    assert draft.read_bytes() == WHOLE


def test_a_restore_tells_how_far_it_is(server: Server) -> None:
    """First and last line and each step on standard error for people; for programs nothing."""
    shown = {"id": "op_1", "workspace_id": "ws_1"}
    going = {**shown, "state": "running", "message": "5 of 9 MiB"}
    done = {**shown, "state": "done", "files_restored": 7}
    server.on("POST", f"{PATH}/restore", good(operation={**shown, "state": "queued"}))
    operation = "/workspace/ws_1/operations/op_1"
    server.on("GET", operation, good(operation=going), good(operation=going), good(operation=done))
    told = archive("restore", "ws_1", "1", "--yes")
    assert "7 files" in told.stdout
    assert "restoring files" in told.stderr
    assert told.stderr.count("5 of 9 MiB") == 1
    assert "done" in told.stderr
    assert archive("restore", "ws_1", "1", "--yes", "--json").stderr == ""


def test_all_archives_are_listed_with_their_workspaces(server: Server) -> None:
    """Without a workspace: those of all, with the id that the other commands take."""
    one = {"version": 1, "status": "ready", "workspace_id": "ws_9", "size_bytes": 5}
    shown = {**one, "workspace_slug": "web", "workspace_deleted": True}
    server.on("GET", "/archives", good(archives=[shown], total=1))
    server.on("GET", "/workspace/ws_9/archives", good(archives=[one]))
    head, line = archive("list").stdout.splitlines()
    assert head.split()[:4] == ["WORKSPACE", "NAME", "DELETED", "VERSION"]
    assert line.split()[:5] == ["ws_9", "web", "yes", "1", "ready"]
    assert archive("list", "ws_9").stdout.split()[:2] == ["VERSION", "STATE"]
    assert json.loads(archive("list", "--json").stdout)[0]["workspace_deleted"] is True


def test_deleting_a_workspace_tells_of_its_archives(server: Server) -> None:
    """How many stay, and how they are found by its id; where there are none, nothing."""
    kept = [
        {"version": 1, "status": status, "workspace_id": "ws_1"} for status in ("ready", "failed")
    ]
    server.on("GET", "/workspace/ws_1", workspace())
    server.on("GET", "/workspace/ws_1/archives", good(archives=kept), good(archives=[]))
    server.on("DELETE", "/workspace/ws_1", good(accepted=True))
    delete = ["workspace", "delete", "ws_1", "--yes"]
    told = CliRunner().invoke(app, delete, catch_exceptions=False).stderr
    assert "its archives stay (1)" in told
    assert "bastide archive list ws_1" in told
    assert "archives" not in CliRunner().invoke(app, delete, catch_exceptions=False).stderr


def test_a_creation_from_an_archive_tells_its_figures(server: Server) -> None:
    """What the message of the creation says of the archive is shown."""
    server.on("POST", "/workspace", workspace("queued", ready=False))
    told = {"state": "running", "phase": "initializing", "message": "Archive ws_9:1: 5 of 9 MiB"}
    shown = {"id": "ws_1", "name": "one", "ready": False, "provisioning": told}
    server.on("GET", "/workspace/ws_1", good(workspace=shown), workspace())
    done = CliRunner().invoke(
        app, ["workspace", "create", "--archive", "ws_9:1"], catch_exceptions=False
    )
    assert "initializing  Archive ws_9:1: 5 of 9 MiB" in done.stderr
