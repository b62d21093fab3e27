"""Protected directories stay, under every spelling. Nothing here can delete for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide_agent.files import deleting
from bastide_agent.http.errors import ApiError

# The list of the specification (runtime 4.7), not the one of the code.
PROTECTED = ("/", "/bin", "/sbin", "/usr", "/lib", "/lib64", "/etc", "/dev", "/proc", "/sys",
             "/boot", "/run")  # fmt: skip


class ReachedError(Exception):
    """The deletion would have happened."""


@pytest.fixture(autouse=True)
def disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing anything raises instead."""

    def reached(name: str, dir_fd: int) -> bool:
        raise ReachedError(f"{name} in {dir_fd}")

    monkeypatch.setattr(deleting, "_remove", reached)
    monkeypatch.setattr(deleting, "_remove_tree", reached)


@pytest.mark.parametrize("path", PROTECTED)
def test_every_spelling(tmp_path: Path, path: str) -> None:
    """Doubled slashes, dots, links on the way and /proc lead to the same 403."""
    link = tmp_path / "link"
    link.symlink_to(path)
    (tmp_path / "root").symlink_to("/")
    name = path[1:]
    spellings = [
        path, f"/{path}", f"{path}/", f"{path}//", f"{path}/.", f"/./{name}/./", f"/tmp/..{path}",
        f"/{name}/../{name}", f"{link}/", f"{link}/.", f"{tmp_path}/root/{name}",
        f"/proc/self/root/{name}", f"/proc/self/cwd/{'../' * 20}{name}",
    ]  # fmt: skip
    for spelling in spellings:
        with pytest.raises(ApiError) as caught:
            deleting.delete(spelling)
        assert caught.value.status == 403, spelling


def test_what_may_go(tmp_path: Path) -> None:
    """A link to a protected directory, and what lies inside one, is not protected."""
    (tmp_path / "link").symlink_to("/etc")
    for path in (tmp_path / "link", Path("/etc/hostname"), tmp_path):
        with pytest.raises(ReachedError):
            deleting.delete(str(path))
