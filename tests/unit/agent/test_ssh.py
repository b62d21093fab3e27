"""What the agent makes of the control plane's word on SSH."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from bastide_agent.http.errors import ApiError
from bastide_agent.http.fields import Fields
from bastide_agent.ssh.access import Access
from bastide_agent.ssh.place import environment

GOOD = {
    "enabled": True,
    "host_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n…",
    "password_hash": "$2b$10$abc",
    "keys": ["ssh-ed25519 AAAA me"],
}


def test_a_word_that_makes_sense() -> None:
    """Off needs nothing more; on needs the server's own key, and takes nobody but root in."""
    assert not Access.of(Fields({"enabled": False})).enabled
    access = Access.of(Fields(GOOD))
    assert access.keys == ("ssh-ed25519 AAAA me",)
    assert Access.of(Fields({**GOOD, "password_hash": None, "keys": None})).password_hash == ""


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"enabled": None}, "enabled"),
        ({"host_key": None}, "host_key"),
        ({"password_hash": "x:0:0::/:/bin/sh"}, "password_hash"),
        ({"password_hash": "x\nroot::0"}, "password_hash"),
        ({"keys": "ssh-ed25519"}, "keys"),
        ({"keys": ["one\ntwo"]}, "keys"),
        ({"keys": ["k"] * 201}, "keys"),
    ],
)
def test_a_word_that_would_break_a_file(change: dict[str, Any], field: str) -> None:
    """Nothing that could be read as another line or field is written."""
    with pytest.raises(ApiError) as refused:
        Access.of(Fields({**GOOD, **change}))
    assert refused.value.details["field"] == field


def test_environment() -> None:
    """Quotes and backslashes are kept, the tools come last, lines stay lines."""
    line = environment(
        {"PATH": "/bin", "A": 'say "hi" \\ there', "B": "two\nlines", "HOME": "/root", "C": "#1 $x"}
    )
    assert line == 'PATH="/bin:/.bastide/ssh/bin" A="say \\"hi\\" \\\\ there" C="#1 $x"'


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["-c", "printf '%s' 'two words'"], 0, "two words", ""),
        (["-c", ""], 0, "", ""),
        ([], 127, "", "no shell"),
        (["-c", "/absent"], 127, "", "/absent: No such file"),
        (["-c", "/absent | cat"], 127, "", "mean nothing"),
        (["-c", "'open"], 127, "", "No closing quotation"),
    ],
)
def test_in_place_of_a_shell(arguments: list[str], code: int, out: str, err: str) -> None:
    """An image without a shell starts programs, and says why it does no more."""
    program = "from bastide_agent.ssh.shell import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, out)
    assert err in done.stderr
