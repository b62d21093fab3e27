"""Addresses of machines, kept in a file.

A machine keeps its address from `reserve` to `release`, over stops, restarts and reboots. New
addresses are taken in order, after the one given last, so a released address comes back only
when the whole subnet has been walked through: until then nobody who still knows it as a friend
(a private link, a cached answer) meets a stranger there.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import structlog

from bastide.node.errors import Conflict, NoSpace
from bastide.sync import sync_directory

_RESERVED_LAST_OCTETS = (0, 255)
_log = structlog.get_logger(__name__)


class Leases:
    """The leases of one subnet, in the JSON file at `path` (written atomically, mode 0600).

    Leases outside `subnet` (it was changed in the settings) are dropped when read. Safe to use
    from several threads; a change waits for the disk, some milliseconds.

    Raises:
        Conflict: the file cannot be understood.
    """

    def __init__(self, path: Path, subnet: IPv4Network) -> None:
        self._path = path
        self._subnet = subnet
        self._changes = threading.Lock()
        self._by_machine: dict[str, IPv4Address] = {}
        self._last = subnet.network_address
        self._read()
        self._taken = set(self._by_machine.values())

    def get(self, machine: str) -> IPv4Address | None:
        """The machine's address, if it has one."""
        return self._by_machine.get(machine)

    def all(self) -> dict[str, IPv4Address]:
        """Every lease."""
        return dict(self._by_machine)

    def reserve(self, machine: str) -> IPv4Address:
        """The machine's address, a new one if it has none yet.

        Raises:
            NoSpace: every address of the subnet is taken.
        """
        with self._changes:
            held = self._by_machine.get(machine)
            if held is not None:
                return held
            for address in self._candidates():
                if address not in self._taken:
                    self._take(machine, address)
                    return address
        raise NoSpace(
            f"all addresses of {self._subnet} are taken; delete workspaces or set a larger "
            "network.subnet"
        )

    def adopt(self, machine: str, address: IPv4Address) -> bool:
        """Note an address found in use; False if that contradicts a lease."""
        with self._changes:
            if self._by_machine.get(machine) == address:
                return True
            known = machine in self._by_machine or address in self._taken
            if known or not self._usable(address):
                return False
            self._take(machine, address)
            return True

    def release(self, machine: str) -> None:
        """Give the address back; harmless if there is none."""
        with self._changes:
            address = self._by_machine.pop(machine, None)
            if address is not None:
                self._taken.discard(address)
                self._write()

    def _take(self, machine: str, address: IPv4Address) -> None:
        self._by_machine[machine] = address
        self._taken.add(address)
        self._last = address
        self._write()

    def _usable(self, address: IPv4Address) -> bool:
        # .0 and .255 are fine addresses in a large subnet, but not every program knows that.
        return (
            address in self._subnet
            and address != self._subnet.network_address + 1
            and int(address) % 256 not in _RESERVED_LAST_OCTETS
        )

    def _candidates(self) -> Iterator[IPv4Address]:
        size = self._subnet.num_addresses
        first = int(self._subnet.network_address)
        start = int(self._last) - first + 1
        for step in range(size):
            address = IPv4Address(first + (start + step) % size)
            if self._usable(address):
                yield address

    def _read(self) -> None:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return
        try:
            document = json.loads(text)
            leases = {str(key): IPv4Address(value) for key, value in document["leases"].items()}
            last = IPv4Address(document["last"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = (
                f"the address leases in {self._path} cannot be read ({error}); restore the file, "
                "or remove it to give every workspace a new address"
            )
            raise Conflict(message) from None
        for machine, address in leases.items():
            if self._usable(address):
                self._by_machine[machine] = address
            else:
                _log.warning("lease dropped", workspace=machine, address=str(address))
        if last in self._subnet:
            self._last = last

    def _write(self) -> None:
        document = {
            "last": str(self._last),
            "leases": {machine: str(held) for machine, held in self._by_machine.items()},
        }
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        sync_directory(self._path.parent)
