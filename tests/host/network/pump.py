"""A wire between a tap of the host and one in a namespace: where an emulator would be."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import threading

from pyroute2 import IPRoute

from bastide.node.network import tap
from bastide.node.network.namespace import network_of, run_inside
from bastide.node.network.place import Place

_TUNSETIFF, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454D8
_FLAGS = 0x2 | 0x1000 | 0x4000  # a tap, no packet information, virtio's header
_MOST = 65536 + 64


class Wire:
    """Carries frames as they are between `descriptor` of the host's tap and `eth0` of a process."""

    def __init__(self, descriptor: int, pid: int, place: Place) -> None:
        self._outer = descriptor
        self._inner = tap.opened()
        with network_of(pid) as namespace:
            run_inside(namespace, lambda: self._configure(place))
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="wire")
        self._thread.start()

    def _configure(self, place: Place) -> None:
        os.close(self._inner)
        self._inner = tap.opened()  # it belongs to the namespace it is opened in
        fcntl.ioctl(self._inner, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _FLAGS))
        fcntl.ioctl(self._inner, _TUNSETVNETHDRSZ, struct.pack("i", 12))
        with IPRoute() as netlink:
            index = socket.if_nametoindex("eth0")
            netlink.link("set", index=1, state="up")
            netlink.link("set", index=index, address=place.mac, mtu=place.mtu)
            netlink.addr("add", index=index, address=str(place.address), prefixlen=32)
            netlink.link("set", index=index, state="up")
            netlink.route("add", dst="default", gateway=str(place.gateway), oif=index, flags=4)
        for path, value in (
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv4/ping_group_range", "0 2147483647"),
        ):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/net/{path}", "w") as file:  # noqa: PTH123 - of this thread's namespace
                file.write(value)

    def _carry(self) -> None:
        ends = {self._outer: self._inner, self._inner: self._outer}
        while True:
            ready, _, _ = select.select([self._stop, *ends], [], [])
            if self._stop in ready:
                return
            for end in ready:
                try:
                    os.write(ends[end], os.read(end, _MOST))
                except BlockingIOError:
                    continue
                except OSError:
                    return  # one of the interfaces was deleted

    def close(self) -> None:
        """Cut it."""
        os.close(self._stopped)
        self._thread.join()
        for each in (self._stop, self._inner, self._outer):
            os.close(each)
