"""From a workspace's question to its answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import IPv4Address

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from bastide.resolver.cache import Cache, Found, Key
from bastide.resolver.node import Away, Node
from bastide.resolver.upstream import PAYLOAD, NoAnswer, Upstream

MOST_OF_ONE = 64
"""Questions of one workspace that are worked on at a time; more are dropped."""
SHARED = 1024
"""Questions of all workspaces together that are worked on at a time, besides one of each."""
_PART = 8
"""A workspace has its own place, and of the shared ones at most this part of those still free."""
_LONGEST_CHAIN = 16
_SMALLEST = 12
_ID = slice(0, 2)
# Workspaces have no IPv6, and an answer without hints makes programs ask for the addresses.
_EMPTY = (dns.rdatatype.AAAA,)
_EMPTY_WHEN_LISTED = (
    dns.rdatatype.AAAA,
    dns.rdatatype.HTTPS,
    dns.rdatatype.SVCB,
    dns.rdatatype.ANY,
)
_NEVER = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)


class Answers:
    """Answers questions as far as workspaces' policies go.

    What upstream answered is kept for its time to live. Questions that are the same and come at
    the same time are asked once.
    """

    def __init__(self, node: Node, upstream: Upstream, cache: Cache | None = None) -> None:
        self._node = node
        self._upstream = upstream
        self._cache = cache or Cache()
        self._asking: dict[Key, asyncio.Task[Found]] = {}
        self._busy: Counter[IPv4Address] = Counter()
        self._taken = 0

    async def answer(self, workspace: IPv4Address, wire: bytes, *, tcp: bool) -> bytes | None:
        """The answer to a question in wire form; None: there is none to give."""
        if not self._has_place(workspace):
            return None
        self._busy[workspace] += 1
        self._taken += 1
        try:
            return await self._answer(workspace, wire, tcp=tcp)
        finally:
            self._taken -= 1
            self._busy[workspace] -= 1
            if not self._busy[workspace]:
                del self._busy[workspace]

    def _has_place(self, workspace: IPv4Address) -> bool:
        """Whether one more question of a workspace is worked on.

        The fewer places are free the fewer each may have, so that however many workspaces ask
        much, none of them keeps a place from one that asks little.
        """
        held = self._busy.get(workspace, 0)
        if held == 0:
            return True
        free = SHARED - (self._taken - len(self._busy))
        return held < min(MOST_OF_ONE, 1 + free // _PART)

    async def _answer(self, workspace: IPv4Address, wire: bytes, *, tcp: bool) -> bytes | None:
        if len(wire) < _SMALLEST or wire[2] & 0x80:
            return None  # no question: an answer to one would only be echoed
        try:
            query = dns.message.from_wire(wire, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            # Its id, and that it could not be read.
            return wire[_ID] + b"\x80\x01" + bytes(8)
        response = dns.message.make_response(query, recursion_available=True, our_payload=PAYLOAD)
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(query.question) != 1 or query.question[0].rdclass != dns.rdataclass.IN:
            response.set_rcode(dns.rcode.REFUSED)
        else:
            await self._fill(workspace, query, response)
        return _wire(query, response, tcp=tcp)

    async def _fill(
        self, workspace: IPv4Address, query: dns.message.Message, response: dns.message.Message
    ) -> None:
        """Put into the response what the workspace may be told."""
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        try:
            listed = self._node.names(workspace)
            if question.rdtype in _NEVER:
                _refuse(response, dns.edns.EDECode.PROHIBITED, "transfers are not served")
            elif listed is not None and name not in listed:
                self._node.tell(workspace, name)
                _refuse(response, dns.edns.EDECode.PROHIBITED, "not in the workspace's egress")
            elif question.rdtype in (_EMPTY if listed is None else _EMPTY_WHEN_LISTED):
                return
            else:
                found = await self._find(query)
                response.set_rcode(found.rcode)
                response.answer = found.fresh(found.answer)
                response.authority = found.fresh(found.authority)
                if question.rdtype == dns.rdatatype.A:
                    await self._addresses(workspace, name, response, listed=listed is not None)
        except Away:
            _fail(response, "the firewall cannot be told now")
        except NoAnswer as error:
            _fail(response, str(error))

    async def _addresses(
        self, workspace: IPv4Address, name: str, response: dns.message.Message, *, listed: bool
    ) -> None:
        """See to the addresses in an answer: let in by the firewall, or noted by the node."""
        chain, addresses = _follow(response)
        if addresses is None:
            return
        found = [IPv4Address(record.address) for record in addresses]
        if not listed:
            if self._node.watched(workspace):
                self._node.tell(workspace, name, found)
            return
        ttl = min(rrset.ttl for rrset in (*chain, addresses))
        granted = await self._node.grant(workspace, name, found, ttl)
        if not granted:
            response.answer, response.authority = [], []
            _refuse(response, dns.edns.EDECode.FILTERED, "an address that is never reached")
            return
        told = dns.rrset.from_text_list(
            addresses.name, addresses.ttl, "IN", "A", [str(address) for address in granted]
        )
        response.answer = [*chain, told]

    async def _find(self, query: dns.message.Message) -> Found:
        """The answer of the cache or of upstream."""
        question = query.question[0]
        signed = bool(query.ednsflags & dns.flags.DO)
        key = (question.name.to_text().lower(), int(question.rdtype), signed)
        kept = self._cache.get(key)
        if kept is not None:
            return kept
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.create_task(self._ask(key, question, signed=signed))
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)

    async def _ask(self, key: Key, question: dns.rrset.RRset, *, signed: bool) -> Found:
        query = dns.message.make_query(
            question.name, question.rdtype, use_edns=0, payload=PAYLOAD, want_dnssec=signed
        )
        found = Found.of(await self._upstream.ask(query))
        self._cache.put(key, found)
        return found


def _follow(
    response: dns.message.Message,
) -> tuple[list[dns.rrset.RRset], dns.rrset.RRset | None]:
    """The aliases from the name asked for to the one with addresses, and these, if any."""
    name = response.question[0].name
    chain: list[dns.rrset.RRset] = []
    while len(chain) <= _LONGEST_CHAIN:
        for rrset in response.answer:
            if rrset.name == name and rrset.rdtype == dns.rdatatype.A:
                return chain, rrset
        alias = next(
            (
                rrset
                for rrset in response.answer
                if rrset.name == name and rrset.rdtype == dns.rdatatype.CNAME
            ),
            None,
        )
        if alias is None:
            break
        chain.append(alias)
        name = alias[0].target
    return chain, None


def _refuse(response: dns.message.Message, code: dns.edns.EDECode, text: str) -> None:
    _explain(response, dns.rcode.REFUSED, code, text)


def _fail(response: dns.message.Message, text: str) -> None:
    response.answer, response.authority = [], []
    _explain(response, dns.rcode.SERVFAIL, dns.edns.EDECode.NETWORK_ERROR, text)


def _explain(
    response: dns.message.Message, rcode: dns.rcode.Rcode, code: dns.edns.EDECode, text: str
) -> None:
    """An error with its reason (RFC 8914), for those who can read it."""
    response.set_rcode(rcode)
    if response.edns >= 0:
        response.use_edns(0, payload=PAYLOAD, options=[dns.edns.EDEOption(code, text)])


def _wire(query: dns.message.Message, response: dns.message.Message, *, tcp: bool) -> bytes:
    """In wire form; too long for a datagram: cut, so that it is asked for over TCP."""
    most = 65535 if tcp else max(512, min(query.payload if query.edns >= 0 else 512, PAYLOAD))
    try:
        return response.to_wire(max_size=most, want_shuffle=False)
    except dns.exception.TooBig:
        response.answer, response.authority, response.additional = [], [], []
        response.flags |= dns.flags.TC
        return response.to_wire()
