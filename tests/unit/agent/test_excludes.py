"""Globs of what is not watched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide_agent.watchers.excludes import Excludes


@pytest.mark.parametrize(
    ("glob", "relative", "wanted"),
    [
        ("*.log", "a.log", True), ("*.log", "deep/down/a.log", True), ("*.log", "log", False),
        ("tmp/", "x/tmp", True), ("**/tmp", "tmp", True), ("**/tmp/**", "x/tmp", True),
        ("src/gen", "src/gen", True), ("src/gen", "gen", False), ("src/gen", "x/src/gen", False),
        ("./src/gen", "src/gen", True), ("/root/top", "top", True), ("/root/top", "x/top", False),
        ("/top", "top", True), ("[ab]?", "x/b1", True), ("[", "[", True), ("", "x", False),
        ("/", "x", False), ("a.c", "abc", False),
    ],
)  # fmt: skip
def test_own_globs(glob: str, relative: str, *, wanted: bool) -> None:
    """A name fits at any depth, a path from the root."""
    assert Excludes("/root", [glob]).match(relative.rpartition("/")[2], relative) is wanted


def test_defaults_stay() -> None:
    """A client's globs are added to the defaults, each once."""
    excludes = Excludes("/", ["mine", ".git", "mine"])
    assert excludes.globs.count(".git") == excludes.globs.count("mine") == 1
    for name in ("node_modules", ".git", "x.swp", "file~", ".DS_Store", "mine"):
        assert excludes.match(name, f"a/{name}")
    assert not excludes.match("main.py", "src/main.py")


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_glob_is_taken(glob: str, name: str) -> None:
    """No glob fails, whatever it holds."""
    Excludes("/root", [glob]).match(name, name)


def test_a_glob_cannot_take_for_ever() -> None:
    """A glob made to make a matcher slow is matched at once."""
    assert not Excludes("/", ["*a" * 100 + "b"]).match("a" * 255, "a" * 255)
