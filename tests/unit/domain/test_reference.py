"""References of images, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain.reference import Reference, looks_like_one

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mysql:8.4", "docker.io/library/mysql:8.4"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("GHCR.example/Owner".lower() + "/tool:v1", "ghcr.example/owner/tool:v1"),
        (f"registry.example:443/a/b/c@{DIGEST}", f"registry.example:443/a/b/c@{DIGEST}"),
        (f"a/b:1@{DIGEST}", f"docker.io/a/b@{DIGEST}"),
        ("10.0.0.1:5000/x__y/z-w.v", "10.0.0.1:5000/x__y/z-w.v:latest"),
    ],
)
def test_a_reference_has_one_full_name(text: str, name: str) -> None:
    """Two that mean the same have the same name, which reads as itself."""
    found = Reference.parse(text)
    assert found.name == name
    assert Reference.parse(name).name == name
    assert looks_like_one(text)


def test_the_default_registry_is_a_setting() -> None:
    """A reference without a registry belongs to the one that is set."""
    assert Reference.parse("a/b:1", "mirror.example:5000").name == "mirror.example:5000/a/b:1"
    assert Reference.parse("b:1", "mirror.example").name == "mirror.example/b:1"


@pytest.mark.parametrize(
    "text",
    [
        "", "/", ":", "@", "a b", "A/b", "a//b", "a/b/", "a:b:c", "-a/b", "a/../b", "../../etc",
        "http://x/", "docker://a/b", "a@sha256:12", "a@md5:" + "0" * 32, "a/b:-tag", "x:70000/a",
        "x.example:0/a", "a" * 256, "ü/b", "a/b\n", "a\x00b/c", "user@host/path", "[::1]/a",
    ],
)  # fmt: skip
def test_what_is_none_is_refused(text: str) -> None:
    """Nothing that could mean another thing to a registry gets through."""
    with pytest.raises(ValueError, match=r"."):
        Reference.parse(text)


@given(st.text(max_size=300))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    """Never anything else; and what is read has a name that can be put into a URL."""
    try:
        found = Reference.parse(text)
    except ValueError:
        return
    assert not set(found.name) - set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/:@"
    )
    assert ".." not in found.repository


def test_a_bare_word_is_of_the_catalogue() -> None:
    """A slip in an id is not fetched from anywhere."""
    assert not looks_like_one("debian-12")
    assert not looks_like_one("python-3.11")
