"""The buffer behind a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bastide_agent.terminals.output import Output


def test_nothing_is_lost_or_doubled_between_replay_and_what_follows() -> None:
    """A connection gets the scrollback and then each byte once, however late it takes them."""
    output = Output(4)
    output.write(b"abcdef")
    output.attach()
    output.write(b"ghijkl")
    assert output.unsent == 10
    assert output.take(3) + output.take(100) == b"cdefghijkl"
    assert output.take(1) == b""
    assert output.scrollback() == b"ijkl"


def test_clearing_keeps_what_is_on_its_way() -> None:
    """A cleared scrollback is empty; what the connection is owed still reaches it."""
    output = Output(10)
    output.attach()
    output.write(b"abc")
    output.clear()
    assert output.scrollback() == b""
    assert output.take(10) == b"abc"
    output.write(b"d")
    output.attach()
    assert output.take(10) == b"d"


def test_bounds() -> None:
    """Without a connection no more than the limit is held, and shrinking it frees at once."""
    output = Output(8)
    output.write(b"x" * 1000)
    assert output.kept == 8
    output.limit = 3
    assert output.scrollback() == b"xxx"
    output.attach()
    output.write(b"y" * 100)
    output.detach()
    assert (output.unsent, output.scrollback(), output.scrollback(2)) == (0, b"yyy", b"yy")


STEPS = st.lists(
    st.one_of(
        st.binary(max_size=20), st.sampled_from(["attach", "detach", "clear"]),
        st.integers(1, 30), st.integers(-30, -1),
    )
)  # fmt: skip


@given(STEPS)
def test_any_order_of_use(steps: list[bytes | str | int]) -> None:
    """Whatever happens, the buffer agrees with a plain model of it."""
    output, limit, printed, cleared = Output(16), 16, b"", 0
    sent: bytes | None = None
    owed = 0
    for step in steps:
        if isinstance(step, bytes):
            output.write(step)
            printed += step
        elif step == "attach":
            kept = output.scrollback()
            output.attach()
            sent, owed = b"", len(printed) - len(kept)
        elif step == "detach":
            output.detach()
            sent = None
        elif step == "clear":
            output.clear()
            cleared = len(printed)
        elif isinstance(step, int) and step > 0:
            taken = output.take(step)
            if sent is not None:
                sent += taken
                assert printed[owed : owed + len(sent)] == sent
        elif isinstance(step, int):
            output.limit = limit = -step
        assert output.total == len(printed)
        shown = output.scrollback()
        assert printed.endswith(shown)
        assert len(shown) <= min(limit, len(printed) - cleared)
