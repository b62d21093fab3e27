"""A small world of network namespaces: machines, and an internet that is no internet."""

from __future__ import annotations

import contextlib
import fcntl
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bastide.domain.network import NetworkPolicy
from bastide.node.network import Network, tap

from .pump import Wire

GUEST = Path(__file__).with_name("guest.py")
NAMES = Path(__file__).with_name("nameserver.py")
LOCK = Path("/run/lock/bastide-test-net")
TABLE = "bastide_test_net"
SUBNET = "10.211.0.0/16"
UPLINK = "tnet0"
HOST = "203.0.113.1"  # the host's address towards the internet of the tests
INTERNET = "203.0.113.2"
ELSEWHERE = "198.51.100.7"
RESOLVER = "203.0.113.53"
METADATA = "169.254.169.254"
PRIVATE = "172.31.77.7"
OPENED = "192.168.77.7"  # private, and listed in network.allow_private
ALIBABA = "100.100.100.200"
AZURE = "168.63.129.16"
POOLED = "203.0.113.99"  # an address of network.outbound_pool
DEADLINE = 90.0  # seconds a guest has for what it is told; its own waits are shorter
OUTSIDE = (INTERNET, ELSEWHERE, RESOLVER, METADATA, PRIVATE, OPENED, ALIBABA, AZURE)


def answer_of(process: subprocess.Popen[str], within: float = DEADLINE) -> Any:
    """The next line a process prints, as JSON; one line at a time, so nothing is held back.

    Raises:
        TimeoutError: it prints none in time.
    """
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], within)[0]:
        raise TimeoutError(f"{process.args!r} did not answer within {within:g} s")
    return json.loads(process.stdout.readline())


class Guest:
    """A process in namespaces of its own that does what it is told."""

    def __init__(self, *unshare: str, user: int | None = None) -> None:
        argv = [sys.executable, "-I", str(GUEST)]
        self.process = subprocess.Popen(
            ["unshare", *unshare, *argv] if unshare else argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=user,
        )
        assert self._answer() == "ready"

    @property
    def pid(self) -> int:
        """The process whose namespaces these are."""
        return self.process.pid

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> Any:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
            self.process.stdin.flush()
            return self._answer()

        return call

    def reach(self, host: str, port: int = 80, **options: Any) -> str:
        """How a TCP connect with an exchange ends."""
        return str(self.connect(host=host, port=port, **options))

    def sent(self, host: str, port: int) -> str:
        """How a datagram ends that is answered in some way: by an echo or an ICMP error.

        Of errors the kernel sends few a second to one address, so it is tried again.
        """
        end = time.monotonic() + DEADLINE
        while (found := str(self.datagram(host=host, port=port, deadline=0.5))) == "silent":
            assert time.monotonic() < end
        return found

    def close(self) -> None:
        """End the process and with it the namespaces."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()

    def _answer(self) -> Any:
        return answer_of(self.process)


class Machine(Guest):
    """A guest with its own user and network namespace, as runc makes them."""

    def __init__(self, network: Network, name: str) -> None:
        super().__init__("--user", "--map-root-user", "--net")
        self.name = name
        self.ip = str(network.reserve(name))


class NameServer:
    """The name server of the tests' internet, at `RESOLVER`, or at an address of the host."""

    def __init__(self, internet: Guest | None, address: str = RESOLVER) -> None:
        inside = [] if internet is None else ["nsenter", "--net", "--target", str(internet.pid)]
        self.process = subprocess.Popen(
            [*inside, sys.executable, "-I", str(NAMES), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def set(self, name: str, *records: str, kind: str = "A", ttl: int = 300) -> None:
        """Give a name its records."""
        self._say([name, kind, records, ttl])

    def count(self, name: str) -> int:
        """How often a name was asked for."""
        return int(self._say([name, "count", [], 0]))

    def _say(self, line: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def _answer(self) -> Any:
        return answer_of(self.process)


class Stage:
    """Makes machines on a network and clears them away."""

    def __init__(self, network: Network, internet: Guest, *, taps: bool = False) -> None:
        self.network = network
        self.internet = internet
        self.machines: list[Machine] = []
        self._taps = taps
        self._wires: list[Wire] = []

    async def machine(self, policy: NetworkPolicy | None = None, *, serve: int = 80) -> Machine:
        """A new attached machine that listens on a port."""
        machine = Machine(self.network, f"ws_{len(self.machines):08x}")
        self.machines.append(machine)
        if self._taps:
            await self._wire(machine, policy or NetworkPolicy())
        else:
            await self.network.attach(machine.name, machine.pid, policy or NetworkPolicy())
        machine.serve(port=serve)
        return machine

    async def _wire(self, machine: Machine, policy: NetworkPolicy) -> None:
        """Attach it as a machine with a kernel of its own is, by a tap."""
        descriptor = tap.opened()
        await self.network.attach_tap(machine.name, descriptor, policy)
        place = self.network.place(machine.name)
        self._wires.append(Wire(descriptor, machine.pid, place))

    async def clear(self) -> None:
        """Detach and end every machine."""
        while self._wires:
            self._wires.pop().close()
        for machine in self.machines:
            await self.network.detach(machine.name)
            self.network.release(machine.name)
            machine.close()
        self.machines.clear()


@contextlib.contextmanager
def internet() -> Iterator[Guest]:
    """A namespace with every address of `OUTSIDE`, routed to from the host and nowhere else."""
    with LOCK.open("w") as lock:  # the names here are the same in every run of these tests
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from _internet()


def _internet() -> Iterator[Guest]:
    guest = Guest("--net")
    inside = ["nsenter", "--net", "--target", str(guest.pid), "ip", "-batch", "-"]
    pair = f"link add {UPLINK} type veth peer name eth0 netns {guest.pid}"
    try:
        _ip(
            ["ip", "-batch", "-"],
            pair,
            f"addr add {HOST}/32 dev {UPLINK}",
            f"link set {UPLINK} up",
            f"addr add {POOLED}/32 dev {UPLINK}",
            *(f"route add {address}/32 dev {UPLINK} src {HOST}" for address in OUTSIDE),
        )
        _ip(
            inside,
            "link set lo up",
            "link set eth0 up",
            *(f"addr add {address}/32 dev eth0" for address in OUTSIDE),
            f"route add {HOST}/32 dev eth0 src {INTERNET}",
            f"route add {POOLED}/32 dev eth0 src {INTERNET}",
            f"route add default via {HOST} dev eth0 onlink src {INTERNET}",
        )
        guest.write(path="/proc/sys/net/ipv4/ping_group_range", text="0 2147483647")
        for address in OUTSIDE:  # one socket each: a datagram is answered from where it went
            for port in (53, 80, 443):
                if (address, port) != (RESOLVER, 53):
                    guest.serve(port=port, address=address)
        guest.tell(address=INTERNET)
        yield guest
    finally:
        subprocess.run(["ip", "link", "delete", UPLINK], check=False, capture_output=True)
        guest.close()


def leftovers() -> list[str]:
    """What a test left in the host's network."""
    found = devices("bw0ad3*") + devices("bi0ad3*")
    routes = run("ip", "route", "show", "table", "all")
    found += [line for line in routes.splitlines() if "10.211." in line]
    tables = run("nft", "list", "tables")
    found += [line for line in tables.splitlines() if line.endswith(f" {TABLE}")]
    return found


def buckets() -> list[str]:
    """The token buckets on the tests' links, as `tc` shows them."""
    shown = run("tc", "qdisc", "show").splitlines()
    return [line for line in shown if "qdisc tbf" in line and "0ad3" in line.split(" dev ")[1]]


def devices(pattern: str) -> list[str]:
    """Network devices of the host."""
    return sorted(path.name for path in Path("/sys/class/net").glob(pattern))


def run(*argv: str) -> str:
    """What a command prints; it must succeed."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def uplink_hardware() -> str:
    """The hardware address, in hex, of the host's end towards the tests' internet."""
    return Path(f"/sys/class/net/{UPLINK}/address").read_text().replace(":", "")


def host_ipv6() -> list[str]:
    """IPv6 addresses on the host's ends of the tests' links."""
    lines = Path("/proc/net/if_inet6").read_text().splitlines()
    return [line for line in lines if "bw0ad3" in line]


def _ip(argv: list[str], *lines: str) -> None:
    subprocess.run(argv, input="\n".join(lines) + "\n", text=True, check=True)
