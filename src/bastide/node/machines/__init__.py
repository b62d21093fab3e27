"""Machines of the node: the Machine contract, the container tier, and the fleet of them."""
