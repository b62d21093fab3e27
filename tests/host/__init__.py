"""Tests against the real host: root, namespaces, nftables, runc, HAProxy."""
