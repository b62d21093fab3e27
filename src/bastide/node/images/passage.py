"""Which registries may be asked, and where their addresses may be.

A workspace's owner names the registry, and a registry names others (where tokens are given, where
blobs are). None of them may make this server connect to a network that only it reaches: every
name is looked up and its addresses checked, and the connection goes to the address that was.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass

from bastide.node.errors import ImageDenied, RegistryUnavailable
from bastide.settings import Images

_LOOKUP_SECONDS = 15.0


@dataclass(frozen=True)
class Passage:
    """The operator's rules for registries; hosts are `name` or `name:port`."""

    settings: Images

    def check(self, registry: str) -> None:
        """Refuse a registry that images may not come from.

        Raises:
            ImageDenied: the settings do not name it.
        """
        if not self.settings.admits(registry):
            known = ", ".join((*self.settings.registries, *self.settings.insecure_registries))
            raise ImageDenied(
                f"images of this server do not come from {registry}, but from: "
                f"{known or 'no registry'} (images.registries)"
            )

    def scheme(self, registry: str) -> str:
        """`https`, unless the operator says otherwise of this registry."""
        return "http" if registry in self.settings.insecure_registries else "https"

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be connected to.

        Raises:
            RegistryUnavailable: there are none.
            ImageDenied: one of them is not on the public internet.
        """
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError):
            raise RegistryUnavailable(f"the name {host} cannot be looked up") from None
        addresses = list(dict.fromkeys(str(item[4][0]) for item in found))
        named = self.settings.names
        if not named(f"{host}:{port}") and not (port == 443 and named(host)):
            for address in addresses:
                if not _public(address):
                    raise ImageDenied(
                        f"{host} is not on the public internet; an operator can allow it by "
                        "naming it in images.registries"
                    )
        return addresses


def _public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _public(str(inner))
        if address in _NAT64:
            return _public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    return address.is_global and not address.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
