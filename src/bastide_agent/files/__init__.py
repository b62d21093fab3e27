"""The file system of a workspace over HTTP (spec runtime 4)."""
