"""Text as it may be in names, paths and environments."""

from __future__ import annotations


def plain_text(value: str) -> str:
    """The text, if a process can be given it.

    Raises:
        ValueError: it holds NUL or lone surrogates.
    """
    if "\x00" in value:
        raise ValueError("must not contain a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode text") from None
    return value
