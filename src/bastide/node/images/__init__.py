"""Images of this node: built, pulled from registries, imported, and collected again."""

from bastide.node.images.images import Images

__all__ = ["Images"]
