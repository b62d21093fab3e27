"""Whatever runs machines: the Engine contract and its implementations."""
