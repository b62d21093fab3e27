"""Slugs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain.names import new_name
from bastide.domain.slug import check_slug, slug_of, vary_slug


@given(st.text(max_size=300))
def test_every_name_gives_a_slug(name: str) -> None:
    """Whatever the name, its slug and the variations of it are allowed."""
    slug = slug_of(name)
    assert check_slug(slug) == slug
    assert check_slug(vary_slug(slug)) != slug


@pytest.mark.parametrize("slug", ["ab", "-abc", "abc-", "Abc", "a b", "a" * 129, "images", "a_b"])
def test_wrong_slugs_are_refused(slug: str) -> None:
    """Length, letters, ends and the API's own paths are checked."""
    with pytest.raises(ValueError, match=r"must be|path of the API"):
        check_slug(slug)


def test_new_names_give_their_own_slug() -> None:
    """An automatic name is its slug."""
    name = new_name()
    assert slug_of(name) == name
