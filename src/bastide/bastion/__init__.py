"""The SSH bastion: the one way from outside to the SSH port of a workspace (spec 4.5)."""
