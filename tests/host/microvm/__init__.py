"""MicroVMs on this host."""
