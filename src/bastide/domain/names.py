"""Names for workspaces that were given none."""

from __future__ import annotations

import secrets

_FIRST = (
    *("amber", "bold", "brave", "bright", "calm", "clear", "clever", "cool", "coral", "crisp"),
    *("eager", "fair", "fleet", "fresh", "gentle", "golden", "grand", "green", "happy", "hazel"),
    *("humble", "jade", "keen", "kind", "lively", "lucid", "lunar", "merry", "mild", "misty"),
    *("nimble", "noble", "olive", "proud", "quick", "quiet", "rapid", "royal", "silver", "smart"),
    *("solar", "steady", "still", "sunny", "swift", "tidy", "vivid", "warm", "wise", "young"),
)
_SECOND = (
    *("acorn", "anchor", "arch", "badger", "basin", "beacon", "birch", "bridge", "brook", "cedar"),
    *("cliff", "cloud", "comet", "cove", "creek", "delta", "dune", "falcon", "fern", "field"),
    *("finch", "fjord", "forest", "garden", "glade", "grove", "harbor", "haven", "heron", "hill"),
    *("island", "lake", "lantern", "maple", "marsh", "meadow", "mesa", "moon", "oak", "orchard"),
    *("otter", "peak", "pine", "pond", "raven", "reef", "ridge", "river", "shore", "willow"),
)


def new_name() -> str:
    """A readable name such as `calm-harbor-4821`."""
    return f"{secrets.choice(_FIRST)}-{secrets.choice(_SECOND)}-{secrets.randbelow(9000) + 1000}"
