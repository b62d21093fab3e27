"""Answers to workspaces' questions, over a node and an upstream in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain.egress import Names, destinations
from bastide.resolver.answers import MOST_OF_ONE, SHARED, Answers
from bastide.resolver.cache import Cache
from bastide.resolver.node import Away, Node
from bastide.resolver.upstream import NoAnswer, Upstream, listed, usable

SUBNET = IPv4Network("10.211.0.0/16")
WORKSPACE = IPv4Address("10.211.0.2")
FORBIDDEN = IPv4Address("169.254.169.254")


class FakeNode(Node):
    """Grants everything but one address."""

    def __init__(self, *entries: str, away: bool = False) -> None:
        super().__init__(Path("/nonexistent"))
        self.listed = destinations(entries).names if entries else None
        self.away = away
        self.asked: list[tuple[str, tuple[IPv4Address, ...], int]] = []
        self.told: list[tuple[str, tuple[IPv4Address, ...]]] = []

    def names(self, workspace: IPv4Address) -> Names | None:
        if self.away:
            raise Away
        return self.listed

    def watched(self, workspace: IPv4Address) -> bool:
        return True

    async def grant(
        self, workspace: IPv4Address, name: str, addresses: Iterable[IPv4Address], ttl: int
    ) -> tuple[IPv4Address, ...]:
        found = tuple(addresses)
        self.asked.append((name, found, ttl))
        return tuple(one for one in found if one != FORBIDDEN)

    def tell(
        self, workspace: IPv4Address, name: str, addresses: Iterable[IPv4Address] = ()
    ) -> None:
        self.told.append((name, tuple(addresses)))


class FakeUpstream(Upstream):
    """Answers from lines of a zone."""

    def __init__(self, *lines: str) -> None:
        super().__init__((), SUBNET)
        self.lines = lines
        self.count: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, query: dns.message.Message, port: int = 53) -> dns.message.Message:
        await self.gate.wait()
        self.count[query.question[0].name.to_text()] += 1
        if not self.lines:
            raise NoAnswer("no servers")
        answer = dns.message.make_response(query)
        for line in self.lines:
            name, ttl, kind, *rest = line.split()
            answer.answer.append(dns.rrset.from_text_list(name, int(ttl), "IN", kind, rest))
        return answer


async def ask(
    answers: Answers, name: str, kind: str = "A", *, tcp: bool = True
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0)
    wire = await answers.answer(WORKSPACE, query.to_wire(), tcp=tcp)
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert query.is_response(answer)
    return answer


def addresses(answer: dns.message.Message) -> list[str]:
    return [
        record.address
        for rrset in answer.answer
        if rrset.rdtype == dns.rdatatype.A
        for record in rrset
    ]


async def test_addresses_are_granted_before_they_are_told() -> None:
    """Those of the chain from the name that was asked, and no others; the smallest ttl counts."""
    node = FakeNode("a.example")
    upstream = FakeUpstream(
        "a.example. 300 CNAME b.example.",
        "b.example. 7 CNAME c.example.",
        f"c.example. 60 A 203.0.113.1 {FORBIDDEN}",
        "stranger.example. 60 A 203.0.113.66",
    )
    answer = await ask(Answers(node, upstream), "A.Example.")
    assert addresses(answer) == ["203.0.113.1"]
    assert len(answer.answer) == 3
    (asked,) = node.asked
    assert asked == ("a.example", (IPv4Address("203.0.113.1"), FORBIDDEN), 7)


async def test_loops_of_aliases_end() -> None:
    """An upstream that answers in circles gives no addresses."""
    upstream = FakeUpstream("a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example.")
    node = FakeNode("a.example")
    answer = await ask(Answers(node, upstream), "a.example")
    assert addresses(answer) == []
    assert node.asked == []


async def test_names_that_are_not_listed_are_not_even_asked_for() -> None:
    """Refused, told to the node, and explained."""
    node, upstream = FakeNode("a.example"), FakeUpstream("b.example. 60 A 203.0.113.1")
    answer = await ask(Answers(node, upstream), "b.example")
    assert answer.rcode() == dns.rcode.REFUSED
    assert "egress" in " ".join(option.to_text() for option in answer.options)
    assert upstream.count.total() == 0
    assert node.told == [("b.example", ())]


async def test_without_a_list_all_is_passed_on_and_noted() -> None:
    """Every name has its answer, whatever is behind it."""
    node, upstream = FakeNode(), FakeUpstream(f"b.example. 60 A {FORBIDDEN}")
    answer = await ask(Answers(node, upstream), "b.example")
    assert addresses(answer) == [str(FORBIDDEN)]
    assert node.told == [("b.example", (FORBIDDEN,))]


@pytest.mark.parametrize("kind", ["AAAA", "HTTPS", "SVCB", "ANY"])
async def test_no_other_way_to_an_address(kind: str) -> None:
    """IPv6 and hints are answered empty for a listed name."""
    upstream = FakeUpstream("a.example. 60 A 203.0.113.1")
    answer = await ask(Answers(FakeNode("a.example"), upstream), "a.example", kind)
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert upstream.count.total() == 0


async def test_what_cannot_be_known_is_a_failure() -> None:
    """Node away, no servers: SERVFAIL, and nothing is given out."""
    away = Answers(FakeNode("a.example", away=True), FakeUpstream("a.example. 60 A 203.0.113.1"))
    assert (await ask(away, "a.example")).rcode() == dns.rcode.SERVFAIL
    mute = Answers(FakeNode("a.example"), FakeUpstream())
    assert (await ask(mute, "a.example")).rcode() == dns.rcode.SERVFAIL


async def test_answers_are_kept_for_their_time() -> None:
    """Asked once, with a falling time to live; zero is asked each time; every one is granted."""
    clock = [0.0]
    node, upstream = FakeNode("*.example"), FakeUpstream("a.example. 60 A 203.0.113.1")
    answers = Answers(node, upstream, Cache(clock=lambda: clock[0]))
    await ask(answers, "a.example")
    clock[0] = 20.0
    assert (await ask(answers, "a.example")).answer[0].ttl == 40
    assert upstream.count.total() == 1
    assert [ttl for _, _, ttl in node.asked] == [60, 40]
    clock[0] = 61.0
    await ask(answers, "a.example")
    assert upstream.count.total() == 2
    never = FakeUpstream("a.example. 0 A 203.0.113.1")
    answers = Answers(node, never)
    await ask(answers, "a.example")
    await ask(answers, "a.example")
    assert never.count.total() == 2


async def test_the_same_question_is_asked_once_at_a_time_and_few_by_one_workspace() -> None:
    """Many at once join; more than the bound are dropped."""
    upstream = FakeUpstream("a.example. 60 A 203.0.113.1")
    upstream.gate.clear()
    answers = Answers(FakeNode(), upstream)
    wire = dns.message.make_query("a.example", "A").to_wire()
    tasks = [
        asyncio.create_task(answers.answer(WORKSPACE, wire, tcp=False))
        for _ in range(MOST_OF_ONE + 5)
    ]
    await asyncio.sleep(0)
    upstream.gate.set()
    found = await asyncio.gather(*tasks)
    assert found.count(None) == 5
    assert upstream.count.total() == 1


async def test_many_that_ask_much_leave_a_place_for_each_that_asks_little() -> None:
    """Sixty-four workspaces with a hundred open questions each: a thousand others are answered."""
    upstream = FakeUpstream("a.example. 60 A 203.0.113.1")
    upstream.gate.clear()
    answers = Answers(FakeNode(), upstream)

    def asked(workspace: IPv4Address, number: int) -> asyncio.Task[bytes | None]:
        wire = dns.message.make_query(f"n{number}.example", "A").to_wire()
        return asyncio.create_task(answers.answer(workspace, wire, tcp=False))

    loud = [asked(WORKSPACE + one, number) for number in range(100) for one in range(64)]
    await asyncio.sleep(0)
    open_now = Counter(index % 64 for index, task in enumerate(loud) if not task.done())
    assert open_now.total() <= SHARED + 64
    assert max(open_now.values()) - min(open_now.values()) <= 1
    quiet = [asked(WORKSPACE + 100 + one, one) for one in range(1000)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in quiet)
    upstream.gate.set()
    assert None not in await asyncio.gather(*quiet)
    told = [await task for task in loud]
    assert len(told) - told.count(None) == open_now.total()
    again = [asked(WORKSPACE, number) for number in range(MOST_OF_ONE)]
    assert None not in await asyncio.gather(*again)


async def test_long_answers_are_cut_for_datagrams() -> None:
    """So that they are asked for over TCP."""
    many = " ".join(f"203.0.113.{number}" for number in range(200))
    answers = Answers(FakeNode(), FakeUpstream(f"a.example. 60 A {many}"))
    cut = await ask(answers, "a.example", tcp=False)
    assert cut.flags & dns.flags.TC
    assert addresses(cut) == []
    assert len(addresses(await ask(answers, "a.example"))) == 200


@given(st.binary(max_size=300))
def test_no_bytes_break_it(data: bytes) -> None:
    """Whatever comes is answered in DNS or not at all."""
    answers = Answers(FakeNode("a.example"), FakeUpstream("a.example. 60 A 203.0.113.1"))
    for wire in (data, b"\0\1\1\0\0\1\0\0\0\0\0\0" + data):
        found = asyncio.run(answers.answer(WORKSPACE, wire, tcp=False))
        if found is not None:
            assert found[2] & 0x80


def test_upstream_servers(tmp_path: Path) -> None:
    """Those of the host, on loopback too, never ourselves; at most three."""
    file = tmp_path / "resolv.conf"
    file.write_text(
        "search x\nnameserver 127.0.0.53\nnameserver 10.211.0.1\nnameserver 0.0.0.0\n"
        "nameserver ::1\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver 192.0.2.1\n"
    )
    assert usable(listed(file), SUBNET) == ("127.0.0.53", "::1", "fe80::1%eth0")
    assert Upstream(("192.0.2.9",), SUBNET, file).servers == ("192.0.2.9",)
    assert Upstream((), SUBNET, tmp_path / "none").servers == ()
