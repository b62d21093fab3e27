"""Addresses, links, routes and firewall of the machines on one host.

`Network` is all the node needs; the other modules are its parts: `lease` (addresses), `link`
(veth pairs and routes), `rules` (policy to firewall rules, pure), `nft` (the firewall itself).
"""

from bastide.node.network.network import Network, SweepCount

__all__ = ["Network", "SweepCount"]
