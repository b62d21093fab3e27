"""Accounts of an image, as its configuration names them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bastide_agent.account import NoAccountError, find_account

USERS = """root:x:0:0:root:/root:/bin/sh
web:x:101:102::/home/web:/bin/sh
broken:line
big:x:99999:1::/:
"""
GROUPS = "root:x:0:\nweb:x:102:\ndisk:x:6:web,other\nlog:x:7:web\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """The image's files."""
    users, groups = tmp_path / "passwd", tmp_path / "group"
    users.write_text(USERS)
    groups.write_text(GROUPS)
    return str(users), str(groups)


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("web", (101, 102, [6, 7, 102], "/home/web")),
        ("101", (101, 102, [6, 7, 102], "/home/web")),
        ("web:disk", (101, 6, [6], "/home/web")),
        ("web:1000", (101, 1000, [1000], "/home/web")),
        ("1234", (1234, 0, [0], "/")),
        ("1234:web", (1234, 102, [102], "/")),
        ("root", (0, 0, [0], "/root")),
    ],
)
def test_accounts(files: tuple[str, str], user: str, account: tuple[object, ...]) -> None:
    """Names and numbers, with and without a group; numbers need no entry."""
    found = find_account(user, *files)
    assert (found.uid, found.gid, found.groups, found.home) == account


@pytest.mark.parametrize("user", ["nobody-knows", "web:nobody-knows", "70000", "-1", "big", ":"])
def test_an_account_that_is_not_there(files: tuple[str, str], user: str) -> None:
    """It is told; the command does not run as somebody else instead."""
    with pytest.raises(NoAccountError, match="the image has no"):
        find_account(user, *files)


def test_files_that_are_none(tmp_path: Path) -> None:
    """A pipe in the place of the accounts holds nothing up."""
    pipe = tmp_path / "passwd"
    os.mkfifo(pipe)
    assert find_account("5", str(pipe), str(pipe)).uid == 5
    with pytest.raises(NoAccountError):
        find_account("web", str(pipe), str(tmp_path / "nothing"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_the_command_runs_as_the_account(files: tuple[str, str]) -> None:
    """With its groups, and no way back."""
    argv = find_account("web", *files).command(
        "/bin/sh", ["sh", "-c", "id -u; id -g; id -G; echo $0"]
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["101", "102"]
    assert set(done.stdout.split("\n")[2].split()) == {"102", "6", "7"}
