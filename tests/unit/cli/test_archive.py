"""`bastide archive` through a scripted server."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest
from tests.unit.client.server import Server, good
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


def test_a_restore_tells_that_it_goes_on(server: Server) -> None:
    """First and last line on standard error for people; for programs nothing."""
    server.on("POST", f"{PATH}/restore", good(files_restored=7))
    done = archive("restore", "ws_1", "1", "--yes")
    assert "7 files" in done.stdout
    assert "restoring files" in done.stderr
    assert "done" in done.stderr
    assert archive("restore", "ws_1", "1", "--yes", "--json").stderr == ""
