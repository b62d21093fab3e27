"""Search by content (ripgrep from the bundle) and by name (spec runtime 5)."""
