"""What is believed of a machine's last words."""

from __future__ import annotations

import fcntl
import os

import pytest

from bastide.node.machines.farewell import Farewell
from bastide.node.machines.microvm.guest import Conversation
from bastide.node.process import Ended

KILLED = Ended(code=137, signal=9)
UNKNOWN = Ended(code=137)


@pytest.mark.parametrize(
    ("said", "code", "told"),
    [
        (b"\nBASTIDE SIGNAL 9\n", 137, KILLED),
        (b"noise\xff\nBASTIDE SIGNAL 11\n\nBASTIDE SIGNAL 9\nmore", 137, KILLED),
        (b"", 137, UNKNOWN),
        (b"\nBASTIDE SIGNAL 9", 137, UNKNOWN),
        (b"\nBASTIDE SIGNAL 999\n", 137, UNKNOWN),
        (b"\nsaid BASTIDE SIGNAL 9\n", 137, UNKNOWN),
        (b"\nBASTIDE SIGNAL 9\n", 0, Ended(code=0)),
        (b"\nBASTIDE SIGNAL 0\n", 128, Ended(code=128)),
    ],
)
def test_a_signal_counts_where_it_fits_the_code(said: bytes, code: int, told: Ended) -> None:
    """The last line of that form decides, and only with the code of that signal."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    farewell = Farewell()
    farewell.listen(reading)
    os.write(writing, said)
    os.close(writing)
    assert farewell.of(Ended(code=code)) == told
    farewell.close()


def test_a_pipe_that_is_full_or_still_open_holds_nothing_up() -> None:
    """No more than a bounded piece is read, and nobody is waited for."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    farewell = Farewell()
    farewell.listen(reading)
    assert farewell.of(UNKNOWN) == UNKNOWN
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(writing, b"x" * (1 << 19) + b"\nBASTIDE SIGNAL 9\n")
    assert farewell.of(UNKNOWN) == UNKNOWN
    os.close(writing)
    farewell.close()


def test_what_is_not_known_stays_so() -> None:
    """Nothing is made up for a machine that was killed, or whose pipe nobody holds."""
    farewell = Farewell()
    farewell.close()
    for ended in (Ended(), Ended(signal=9), UNKNOWN):
        assert farewell.of(ended) == ended


def test_a_guest_says_it_on_its_boot_port() -> None:
    """The same line, among others, before the word of its init."""
    said = Conversation()
    said.feed(b"READY\nnoise\n\nBASTIDE SIGNAL 9\nBASTIDE EXIT 137 0\n")
    assert said.signal == 9
    assert said.exit is not None
    assert said.exit.code == 137
