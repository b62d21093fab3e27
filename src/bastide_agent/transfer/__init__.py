"""tar.gz up and down as streams, with constant memory (spec runtime 10)."""
