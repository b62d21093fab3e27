"""Programs with their own loader and libraries, made from the host's own `true`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bastide.node.machines.version import ProgramVersion, words
from bastide.prepare.archive import PrepareError
from bastide.prepare.program import Program


def read(*command: Path | str) -> ProgramVersion | None:
    """The version of GNU's true."""
    found = re.search(r"coreutils\) (\d+)\.(\d+)", words(*command) or "")
    return found and ProgramVersion(".".join(found.groups()), tuple(map(int, found.groups())))


TRUE = Program("true", "now", "tests", "1.0", read)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the packages of `true` would unpack to."""
    loader = next(iter(sorted(Path("/usr").glob("lib*/ld-linux-*.so.*"))))
    libraries = loader.resolve().parent
    tree = tmp_path / "tree"
    for source, target in (
        (Path("/usr/bin/true"), tree / "usr/sbin/true"),
        (loader, tree / "usr/lib64" / loader.name),
        (libraries / "libc.so.6", tree / "usr/lib" / libraries.name / "libc.so.6"),
    ):
        target.parent.mkdir(parents=True)
        shutil.copy2(source, target)
    return tree


def test_it_runs_with_what_was_brought(tree: Path, tmp_path: Path) -> None:
    """The one in use starts, names its own loader, and the one before is gone."""
    home = tmp_path / "runtime"
    (home / "true-0.9-1").mkdir(parents=True)
    TRUE._point(home, TRUE._lay_out(tree, tmp_path / "ready", home))
    program = home / "now/true"
    assert read(program) is not None
    shown = subprocess.run(
        ["patchelf", "--print-interpreter", program], capture_output=True, text=True, check=True
    )
    assert Path(shown.stdout.strip()).is_relative_to(home)
    assert [path.name for path in home.glob("true-*")] == [program.resolve().parent.name]
    said: list[str] = []
    assert TRUE.ensure(tmp_path, said.append) == program, "one that is there is kept"
    assert said[0].endswith("is there")


def test_a_missing_library_is_told(tree: Path, tmp_path: Path) -> None:
    """A library that would come from the host is not taken for one that was brought."""
    for path in tree.glob("usr/lib/*/libc.so.6"):
        path.unlink()
    with pytest.raises(PrepareError):
        TRUE._lay_out(tree, tmp_path / "ready", tmp_path)


def test_versions_are_compared_by_their_numbers() -> None:
    """Not as text, and a longer one of the same is no older."""
    assert ProgramVersion("1.10", (1, 10)).at_least("1.9")
    assert ProgramVersion("4.2.1", (4, 2, 1)).at_least("4.2")
    assert not ProgramVersion("4.1.9", (4, 1, 9)).at_least("4.2")


def test_strings_are_replaced_once_and_for_all(tmp_path: Path) -> None:
    """Whole strings only, of one length, in one step; what is done is left alone."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF /run/x\0 and /run/x.old\0")
    program.chmod(0o755)
    made = Program("program", "link", "a test", "1", read, ((b"/run/x", b"/dev/x"),))
    made._adjust(program)
    assert program.read_bytes() == b"\x7fELF /dev/x\0 and /run/x.old\0"
    assert program.stat().st_mode & 0o777 == 0o755
    before = program.stat().st_ino
    made._adjust(program)
    assert program.stat().st_ino == before
    wrong = Program("program", "link", "a test", "1", read, ((b"/run", b"/device"),))
    with pytest.raises(ValueError, match="one length"):
        wrong._adjust(program)
