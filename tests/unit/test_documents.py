"""Documents that must keep up with what they describe."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from bastide.node.routes import ROUTES

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def described() -> set[str]:
    """Every name in the first column of a table of docs/dependencies.md."""
    names: set[str] = set()
    for line in (ROOT / "docs/dependencies.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| package"):
            names |= set(re.findall(r"[a-z0-9.+-]+", line.split("|")[1]))
    return names


def test_every_python_dependency_has_its_reason() -> None:
    """Each package of pyproject.toml is in docs/dependencies.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    names = {re.split(r"[\[<>=~! ]", item)[0] for item in wanted}
    assert names - described() == set()


def test_every_debian_package_has_its_reason() -> None:
    """Each package of script/packages is in docs/dependencies.md."""
    lines = (ROOT / "script/packages").read_text().splitlines()
    names = {line for line in lines if line and not line.startswith(("#", "["))}
    assert names - described() == set()


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda path: path.name,
)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    """Each relative link of a document is a file or directory of the repository."""
    targets = [link for link in LINK.findall(path.read_text()) if "://" not in link]
    assert [link for link in targets if not (path.parent / link).exists()] == []


def test_promises_name_their_tests() -> None:
    """Each test that docs/specification.md names is there."""
    text = (ROOT / "docs/specification.md").read_text()
    named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", text)
    assert named
    for file, function in named:
        source = (ROOT / file).read_text()
        assert not function or f"def {function}(" in source, f"{file}::{function}"


def test_every_call_of_the_sockets_is_described() -> None:
    """docs/architecture.md names each path of the node's socket and of the control port."""
    text = (ROOT / "docs/architecture.md").read_text()
    paths = {route.path.replace("{machine}", "{id}") for route in ROUTES}
    for source in (ROOT / "src/bastide_agent").rglob("*.py"):
        paths |= set(re.findall(r'"(/control/[a-z]+)"', source.read_text()))
    described = set(re.findall(r"/(?:v1|control)/[\w/{}]+", text))
    powers = {"/v1/machines/{id}/pause", "/v1/machines/{id}/resume"}  # share the line of kill
    assert paths - described - powers == set()
    assert "resolver.sock" in text
