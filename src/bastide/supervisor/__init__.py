"""Starts the processes of one server and starts them again when they end.

Nothing here is in the way of a request: when the supervisor dies, what it started goes on, its
guard starts a new one, and that one adopts what still runs.
"""
