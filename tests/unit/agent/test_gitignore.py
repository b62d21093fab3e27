"""Ignore rules agree with git itself."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import pytest

from bastide_agent.files.gitignore import Rules, translate

CASES = [
    ("*.log", ["a.log", "d/a.log", "a.logs", ".log"]),
    ("/a", ["a", "b/a", "a/b"]),
    ("a/", ["a", "b/a", "a/b"]),
    ("a/b", ["a/b", "x/a/b", "a/b/c"]),
    ("**/a", ["a", "b/a", "b/c/a", "ba"]),
    ("a/**", ["a", "a/b", "a/b/c", "b/a/c"]),
    ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "ab"]),
    ("a**b", ["ab", "axxb", "a/b", "a/xb"]),
    ("a**/b", ["ax/b", "a/b"]),
    ("**/a/**/b/**/c", ["a/b/c", "x/a/y/b/z/c", "a/b", "a/b/c/d"]),
    ("**", ["a", "a/b"]),
    ("***", ["a", "a/b"]),
    ("a/***/b", ["a/b", "a/c/b"]),
    ("*/b", ["a/b", "b", "a/c/b"]),
    ("?", ["a", "ab", "a/b"]),
    ("[abc]x", ["ax", "dx"]),
    ("[!abc]x", ["ax", "dx"]),
    ("[^a-c]x", ["ax", "dx", "-x"]),
    ("[]a]x", ["]x", "ax", "bx"]),
    ("[a-]x", ["-x", "ax", "bx"]),
    ("[[:digit:]]x", ["1x", "ax"]),
    ("[[:upper:][:digit:]_]x", ["1x", "Ax", "ax", "_x"]),
    ("[z-a]x", ["zx", "ax", "-x"]),
    ("[", ["[", "a"]),
    ("[a", ["[a", "a"]),
    ("a[/]b", ["a/b", "a[/]b"]),
    ("a[!x]b", ["a/b", "ayb"]),
    ("a\\*", ["a*", "ab"]),
    ("\\#a", ["#a", "a"]),
    ("#a", ["#a", "a"]),
    ("\\!a", ["!a", "a"]),
    ("a\\", ["a", "a\\"]),
    ("a ", ["a", "a "]),
    ("a\\ ", ["a", "a "]),
    ("  a", ["a", "  a"]),
    ("*.a\n!b.a", ["a.a", "b.a", "c/b.a"]),
    ("!b.a\n*.a", ["b.a"]),
    ("*\n!*/\n!*.c", ["a.c", "a.h", "d/a.c", "d/e/a.c", "d/e"]),
    ("/*\n!/keep\n/keep/*\n!/keep/this", ["keep/this", "keep/that", "other"]),
    ("a.b", ["a.b", "axb"]),
    ("a+b$(c)|d", ["a+b$(c)|d", "aab"]),
    ("d/\n!d/a", ["d/a"]),
    ("é*", ["éa", "ea"]),
    ("foo\r", ["foo"]),
    ("*a*a*b", ["aab", "xaxaxb", "ab", "aaab"]),
    ("a*b/c*d", ["axb/cxd", "ab/cd", "axb/x/cxd"]),
    ("/", ["a"]),
    ("//a", ["a"]),
    ("a//b", ["a/b"]),
]


# "Other consecutive asterisks are considered regular asterisks", says the manual; here git compares
# pointers into different strings, so what it does is chance.
NOT_DEFINED = re.compile(r"[^/*!\n]\*\*+(/|$)", re.MULTILINE)


def by_git(tmp_path: Path, lines: str, paths: list[str]) -> list[bool]:
    """What `git check-ignore` says of files at these paths."""
    if not (tmp_path / ".git").exists():
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_bytes(lines.encode())
    done = subprocess.run(
        ["git", "-c", "core.excludesFile=", "-C", str(tmp_path), "check-ignore", "-z", "--stdin",
         "--no-index"],
        input="\0".join(paths).encode() + b"\0", capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    said = done.stdout.decode().split("\0")
    return [path in said for path in paths]


def by_rules(lines: str, paths: list[str], folders: set[str]) -> list[bool]:
    """The same by our rules: a path is ignored when it or a directory above it is."""
    rules = Rules(line.removesuffix("\r") for line in lines.split("\n"))
    found = []
    for path in paths:
        parts = path.split("/")
        ignored = False
        for depth in range(1, len(parts) + 1):
            upper = "/".join(parts[:depth])
            folder = depth < len(parts) or upper in folders
            ignored = ignored or bool(rules.match(upper, parts[depth - 1], folder=folder))
        found.append(ignored)
    return found


def make(tmp_path: Path, paths: list[str]) -> set[str]:
    """Create the paths (files, unless another lies below); which are directories."""
    folders = {
        upper for path in paths for other in paths if other.startswith(f"{(upper := path)}/")
    }
    for path in paths:
        if path in folders:
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
        else:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
    return folders


@pytest.mark.parametrize(("lines", "paths"), CASES, ids=[repr(case[0]) for case in CASES])
def test_as_git(tmp_path: Path, lines: str, paths: list[str]) -> None:
    """Each rule of gitignore(5), checked against git."""
    folders = make(tmp_path, paths)
    assert by_rules(lines, paths, folders) == by_git(tmp_path, lines, paths)


def test_random_patterns_as_git(tmp_path: Path) -> None:
    """Random patterns over a small alphabet match as in git."""
    chance = random.Random(7)
    paths = sorted({
        "/".join("".join(chance.choices("ab.", k=chance.randint(1, 3))) + "x"
                 for _ in range(chance.randint(1, 4)))
        for _ in range(150)
    })  # fmt: skip
    paths = [path for path in paths if not any(other.startswith(f"{path}/") for other in paths)]
    folders = make(tmp_path, paths)
    for _ in range(150):
        lines = "\n".join(
            "".join(chance.choices(["a", "b", ".", "x", "*", "**", "/", "?", "[ab]", "!", "**/"],
                                   k=chance.randint(1, 7)))
            for _ in range(chance.randint(1, 3))
        )  # fmt: skip
        if NOT_DEFINED.search(lines) is None:
            assert by_rules(lines, paths, folders) == by_git(tmp_path, lines, paths), lines


def test_no_pattern_is_slow() -> None:
    """Patterns made to backtrack for ever match in no time (this test would never end)."""
    expression = translate("*a" * 40 + "b")
    assert expression is not None
    assert re.fullmatch(expression, "a" * 250) is None
    expression = translate("**/a/" * 40 + "b")
    assert expression is not None
    assert re.fullmatch(expression, "a/" * 1000 + "c") is None
