"""The runtime gateway's tokens and keys."""
