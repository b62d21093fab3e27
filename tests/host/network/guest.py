"""Runs inside a test's network namespace and does there what it is told, one JSON line each.

The standard library, and dnspython for questions: it stands for whatever a workspace may run.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rcode

ETH_P_ALL = 3
PATIENCE = 20.0  # seconds for what is to succeed; where silence is expected, less is given


class Guest:
    """Listens, connects and sends as told; remembers what it heard."""

    def __init__(self) -> None:
        self.held: dict[str, socket.socket] = {}
        self.heard: list[str] = []
        self.news = threading.Condition()

    def serve(self, port: int, address: str = "0.0.0.0") -> str:
        """Echo on TCP and UDP; every datagram and the peer of every connection are noted."""
        tcp = socket.create_server((address, port))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, port))
        threading.Thread(target=self._accept, args=(tcp,), daemon=True).start()
        threading.Thread(target=self._datagrams, args=(udp,), daemon=True).start()
        return "ok"

    def connect(self, host: str, port: int, deadline: float = PATIENCE, hold: str = "") -> str:
        """`open` when an echo came back, else `refused`, `unreachable` or `silent`."""
        tcp = socket.socket()
        tcp.settimeout(deadline)
        try:
            tcp.connect((host, port))
            return self._exchange(tcp)
        except OSError as error:
            return _word(error)
        finally:
            if hold:
                self.held[hold] = tcp
            else:
                tcp.close()

    def datagram(self, host: str, port: int, deadline: float = PATIENCE, hold: str = "") -> str:
        """The same with UDP."""
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.settimeout(deadline)
        try:
            udp.connect((host, port))
            return self._exchange(udp)
        except OSError as error:
            return _word(error)
        finally:
            if hold:
                self.held[hold] = udp
            else:
                udp.close()

    def talk(self, name: str, deadline: float = PATIENCE) -> str:
        """Another exchange on a connection that was held."""
        self.held[name].settimeout(deadline)
        try:
            return self._exchange(self.held[name])
        except OSError as error:
            return _word(error)

    def query(
        self, name: str, kind: str = "A", server: str = "10.211.0.1", *, tcp: bool = False
    ) -> list[str]:
        """What a name server answers: the code, then the records; `silent` without an answer."""
        ask = dns.query.tcp if tcp else dns.query.udp
        try:
            answer = ask(dns.message.make_query(name, kind, use_edns=0), server, timeout=3)
        except dns.exception.Timeout:
            return ["silent"]
        except OSError as error:
            return [_word(error)]
        records = [record.to_text() for rrset in answer.answer for record in rrset]
        return [dns.rcode.to_text(answer.rcode()), *records]

    def pour(self, host: str, port: int, count: int) -> str:
        """Send that many datagrams of noise as fast as can be."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for number in range(count):
                with contextlib.suppress(OSError):
                    noise = number.to_bytes(4, "big") * (1 + number % 100)
                    udp.sendto(noise, (host, port))
        return "ok"

    def seen_as(self, host: str, port: int = 7) -> str:
        """The address the other end sees: its `tell` port says so."""
        with socket.create_connection((host, port), timeout=2) as tcp:
            return tcp.recv(100).decode()

    def tell(self, port: int = 7, address: str = "0.0.0.0") -> str:
        """Tell every TCP peer its address."""
        listener = socket.create_server((address, port))

        def answer() -> None:
            while True:
                connection, peer = listener.accept()
                with connection:
                    connection.sendall(peer[0].encode())

        threading.Thread(target=answer, daemon=True).start()
        return "ok"

    def stream(self, host: str, port: int, size: int) -> int:
        """Send that many bytes to an echo and read them back; how many came."""
        got = 0
        with socket.create_connection((host, port), timeout=60) as tcp:
            threading.Thread(target=tcp.sendall, args=(bytes(size),), daemon=True).start()
            while got < size:
                got += len(tcp.recv(1 << 20))
        return got

    def ping(self, host: str, deadline: float = PATIENCE) -> str:
        """`open` when an echo reply came."""
        icmp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        with icmp:
            icmp.settimeout(deadline)
            try:
                icmp.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"ping", (host, 0))
                icmp.recv(100)
            except OSError as error:
                return _word(error)
            return "open"

    def frame(self, data: str) -> str:
        """Put a raw frame (hex) on eth0."""
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        with raw:
            raw.bind(("eth0", 0))
            raw.send(bytes.fromhex(data))
        return "ok"

    def hardware(self) -> str:
        """The hardware address of eth0, in hex."""
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with raw:
            raw.bind(("eth0", 0))
            return bytes(raw.getsockname()[4]).hex()

    def arp(self, target: str, deadline: float = PATIENCE) -> str:
        """`open` when somebody answers an ARP request for the address."""
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        with raw:
            raw.bind(("eth0", 0))
            raw.settimeout(deadline)
            mine = raw.getsockname()[4]
            own = socket.inet_aton(self.address())
            head = b"\xff" * 6 + mine + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
            raw.send(head + mine + own + b"\0" * 6 + socket.inet_aton(target))
            try:
                while True:
                    answer = raw.recv(100)
                    if answer[28:32] == socket.inet_aton(target) and answer[20:22] == b"\0\2":
                        return "open"
            except OSError as error:
                return _word(error)

    def address(self) -> str:
        """The address this namespace speaks from."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("203.0.113.2", 9))
            return str(probe.getsockname()[0])

    def wait_for(self, text: str, deadline: float = PATIENCE) -> str:
        """`open` once a line with the text was heard."""
        with self.news:
            heard = self.news.wait_for(lambda: any(text in line for line in self.heard), deadline)
        return "open" if heard else "silent"

    def read(self, path: str) -> str:
        """A file, as this namespace sees it."""
        return Path(path).read_text()

    def write(self, path: str, text: str) -> str:
        """Write a file, as this namespace may."""
        try:
            Path(path).write_text(text)
        except OSError as error:
            return _word(error)
        return "ok"

    def _exchange(self, connection: socket.socket) -> str:
        connection.send(b"hello")
        return "open" if connection.recv(100) == b"hello" else "silent"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, peer = listener.accept()
            self._note(f"tcp {peer[0]}")
            threading.Thread(target=_echo, args=(connection,), daemon=True).start()

    def _datagrams(self, listener: socket.socket) -> None:
        while True:
            data, peer = listener.recvfrom(2000)
            self._note(f"udp {peer[0]} {data.decode(errors='replace')}")
            with contextlib.suppress(OSError):
                listener.sendto(data, peer)

    def _note(self, line: str) -> None:
        with self.news:
            self.heard.append(line)
            self.news.notify_all()


def _echo(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := connection.recv(65536):
            connection.sendall(data)


def _word(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "silent"
    if isinstance(error, ConnectionRefusedError | ConnectionResetError | BrokenPipeError):
        return "refused"
    if isinstance(error, PermissionError):
        return "refused"
    return "unreachable"


def main() -> None:
    """Answer requests until standard input ends."""
    guest = Guest()
    print(json.dumps("ready"), flush=True)  # noqa: T201
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        answer = getattr(guest, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
