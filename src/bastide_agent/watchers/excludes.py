"""Names that are not watched (spec runtime 9)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate

from bastide_agent.pattern import compiled

DEFAULTS = (
    "node_modules", ".git", ".svn", ".hg", "__pycache__", ".pytest_cache", ".mypy_cache", ".next",
    ".nuxt", "dist", "build", ".DS_Store", "*.swp", "*.swo", "*~",
)  # fmt: skip
_MAGIC = frozenset("*?[")


class Excludes:
    """The defaults and a client's own globs.

    A glob without `/` fits a name at any depth; one with `/` fits the path relative to the root
    (an absolute one is made so). A directory that fits is left out with all that is in it.
    """

    def __init__(self, root: str, own: Iterable[str] = ()) -> None:
        self.globs = list(dict.fromkeys((*DEFAULTS, *own)))
        names: set[str] = set()
        by_name: list[str] = []
        by_path: list[str] = []
        for glob in self.globs:
            anchored = glob.startswith("/")
            plain = glob.removeprefix(root.rstrip("/") + "/").removesuffix("/**").strip("/")
            plain = plain.removeprefix("./")
            while plain.startswith("**/"):
                plain = plain[3:]
            if anchored or "/" in plain:
                by_path.append(plain)
            elif _MAGIC.isdisjoint(plain):
                names.add(plain)
            elif plain:
                by_name.append(plain)
        self._names = names
        self._by_name = _patterns(by_name)
        self._by_path = _patterns(by_path)

    def match(self, name: str, relative: str) -> bool:
        """Whether an entry is left out: its name, and its path relative to the root."""
        return (
            name in self._names
            or any(pattern.match(name) for pattern in self._by_name)
            or any(pattern.match(relative) for pattern in self._by_path)
        )


def _patterns(globs: list[str]) -> list[re.Pattern[str]]:
    return [compiled(translate(glob)) for glob in globs]
