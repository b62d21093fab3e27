"""Terminals: programs on pseudo-terminals that outlive the clients that watch them."""
