"""The node against the real host: runc, erofs, ext4, cgroups, and the real network."""
