"""The microVM tier: a machine with a kernel of its own, on QEMU in a jail."""
