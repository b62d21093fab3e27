"""Watchers: changes below a directory, told as they happen."""
