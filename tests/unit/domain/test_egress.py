"""Where a workspace may begin connections to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain.egress import canonical, destinations, name_of

labels = st.from_regex(r"[a-z0-9_]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
names = (
    st.lists(labels, min_size=1, max_size=5)
    .map(".".join)
    .filter(lambda name: not name.rpartition(".")[2].isdigit())
)


@given(names, labels)
def test_an_exact_name_is_that_name_alone(name: str, label: str) -> None:
    """Neither what is below it nor what only ends like it."""
    listed = destinations((name,)).names
    assert name in listed
    assert f"{label}.{name}" not in listed
    assert f"{label}{name}" not in listed


@given(names, st.lists(labels, min_size=1, max_size=4))
def test_a_wildcard_is_everything_below(name: str, below: list[str]) -> None:
    """At any depth, and not the domain itself."""
    listed = destinations((f"*.{name}",)).names
    assert name not in listed
    assert ".".join([*below, name]) in listed
    assert f"x{name}" not in listed


@given(names)
def test_case_and_the_final_dot_do_not_matter(name: str) -> None:
    """They are stored in one form, which is the one that is compared."""
    assert canonical(name.upper() + ".") == name
    assert name in destinations((name.upper() + ".",)).names
    assert name_of(name.upper()) == name


@pytest.mark.parametrize("entries", [(), ("*",), ("example.com", "*"), ("0.0.0.0/0",)])
def test_everything(entries: tuple[str, ...]) -> None:
    """No entries, a star, or the whole range are no restriction."""
    assert destinations(entries).everything


@pytest.mark.parametrize(
    "entry",
    [
        "", ".", "*.", "**", "a b", "a..b", "-a.b", "a-.b", "a" * 64 + ".com", "1.2.3",
        "1.2.3.4.5", "01.2.3.4", "0x7f.1", "2130706433", "1.2.3.4/33", "1.2.3.4/24", "http://a.b",
        "a.b:80", "::1", "::ffff:169.254.169.254", "a.b/c", "*a.b", "a.*.b", "mañana.es", "a.b\n",
        "a\x00.b", "a.b..",
    ],
)  # fmt: skip
def test_what_is_neither_address_nor_name(entry: str) -> None:
    """It is refused with a sentence that quotes it."""
    with pytest.raises(ValueError, match=r"is |has "):
        destinations((entry,))


@given(st.text(max_size=40))
def test_any_text_is_understood_or_refused(text: str) -> None:
    """Nothing but `ValueError`, and what is taken is plain."""
    try:
        found = destinations((text,))
    except ValueError:
        return
    for entry in found.names.entries:
        assert entry.isascii()
        assert not set(entry) & set(' ";{}\n\\')
