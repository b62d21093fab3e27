"""bastide-node: the root daemon that runs machines (docs/architecture.md, Processes)."""
