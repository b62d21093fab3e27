"""The edge with a real HAProxy."""
