"""Bastide: a self-hosted cloud of Linux workspaces."""
