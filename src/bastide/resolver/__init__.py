"""The resolver of the workspaces: a process without privileges on each workspace's gateway address.

It answers questions for names as far as the workspace's policy goes. Addresses of names that the
policy lists are given out only once the node has put them into the firewall.
"""
