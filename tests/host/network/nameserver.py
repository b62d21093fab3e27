"""The name server of the tests' internet: every name in it, with answers that change when told.

Run with an address; reads one JSON line each from standard input: a name, type, records, time to
live. Names are matched in lower case. UDP and TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from collections import Counter
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


class Zone:
    """Records by name and type."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self.asked: Counter[str] = Counter()

    def answer(self, wire: bytes, *, tcp: bool) -> bytes:
        """An authoritative-looking, recursive answer: aliases are followed."""
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        name, kind = question.name, dns.rdatatype.to_text(question.rdtype)
        self.asked[name.to_text(omit_final_dot=True).lower()] += 1
        for _ in range(20):
            key = name.to_text(omit_final_dot=True).lower()
            alias = self.records.get((key, "CNAME"))
            found = self.records.get((key, kind))
            if found is not None:
                response.answer.append(
                    dns.rrset.from_text_list(name, found[0], "IN", kind, found[1])
                )
                break
            if alias is None:
                if not any(known == key for known, _ in self.records):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                break
            response.answer.append(
                dns.rrset.from_text_list(name, alias[0], "IN", "CNAME", alias[1])
            )
            name = dns.name.from_text(alias[1][0])
        if not tcp and sum(len(one) for one in response.answer) > 20:
            response.answer = []
            response.flags |= dns.flags.TC
        return response.to_wire()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(self.zone.answer(data, tcp=False), addr)


async def serve(address: str) -> None:
    """Serve until standard input ends."""
    zone = Zone()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            size = int.from_bytes(await reader.readexactly(2), "big")
            answer = zone.answer(await reader.readexactly(size), tcp=True)
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        writer.close()

    def listen() -> None:
        for line in sys.stdin:
            name, kind, records, ttl = json.loads(line)
            if kind == "count":
                print(json.dumps(zone.asked[name]), flush=True)  # noqa: T201
                continue
            zone.records[name.lower(), kind] = (ttl, records)
            print(json.dumps("ok"), flush=True)  # noqa: T201
        loop.call_soon_threadsafe(ended.set)

    await loop.create_datagram_endpoint(lambda: _Datagrams(zone), local_addr=(address, 53))
    await asyncio.start_server(stream, address, 53)
    threading.Thread(target=listen, daemon=True).start()
    print(json.dumps("ready"), flush=True)  # noqa: T201
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
