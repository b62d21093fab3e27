"""The `bastide` command: for the person who runs a server, and for the one who uses it."""
