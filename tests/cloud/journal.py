"""A writer inside a workspace that never rests, and what the test has heard of it.

It appends numbered and chained records to one file, syncs each, and only then tells of it on its
standard output. The test hears that as a stream while anything happens to the workspace, so that
what it was told of is known without asking the workspace afterwards.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from hashlib import blake2b

import httpx
from tests.cloud.cloud import Cloud

from bastide.client import BastideError, Exited, Output

PATH = "/root/journal"
DEADLINE = 90.0
PATIENCE = 10.0
"""Seconds without a word before it is listened to anew: a silent connection may be a dead one."""
_WRITER = r"""
import hashlib, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
directory = os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)
os.fsync(directory)
text = b""
while piece := os.read(file, 1 << 20):
    text += piece
text = text[: text.rfind(b"\n") + 1]
os.ftruncate(file, len(text))
number, _, digest = (text.decode().splitlines() or ["0 - -"])[-1].split()
number = int(number)
while True:
    number += 1
    chance = os.urandom(8).hex()
    digest = hashlib.blake2b(f"{digest} {number} {chance}".encode(), digest_size=8).hexdigest()
    os.write(file, f"{number} {chance} {digest}\n".encode())
    os.fsync(file)
    print(number, chance, flush=True)
    time.sleep(0.01)
"""


def records(text: str) -> frozenset[str]:
    """The records in a journal's text, as they are told of; each has its number and hash.

    A record is made of chance, so one that was written again after a restore is another.
    """
    digest, found = "-", []
    for place, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        number, chance, given = line.split()
        digest = blake2b(f"{digest} {number} {chance}".encode(), digest_size=8).hexdigest()
        assert (int(number), given) == (place, digest), f"line {place} of the journal is wrong"
        found.append(f"{number} {chance}")
    return frozenset(found)


class Journal:
    """The writer of one workspace, started anew whenever its machine was."""

    def __init__(self, cloud: Cloud, workspace: str) -> None:
        self._client = cloud.client()
        self._workspace = workspace
        self._told: set[str] = set()
        self._news = threading.Condition()
        self._round = 0
        self._listener: threading.Thread | None = None
        self._error = ""

    @property
    def told(self) -> frozenset[str]:
        """Every record that is synced for certain."""
        with self._news:
            return frozenset(self._told)

    def go_on(self) -> None:
        """Have it write, and wait for a word of it."""
        end = time.monotonic() + DEADLINE
        with self._news:
            before = len(self._told)
            while len(self._told) <= before:
                assert time.monotonic() < end, f"the journal does not go on: {self._error}"
                listener = self._listener
                if listener is None or not listener.is_alive():
                    listener = self._listen()
                if not self._news.wait_for(
                    lambda: len(self._told) > before or self._listener is None, PATIENCE
                ):
                    self._listener = None

    def go_back(self, told: Iterable[str]) -> None:
        """Know only of these from now on, and hear nothing until it goes on."""
        with self._news:
            self._be_deaf()
            self._told = set(told)

    def be_deaf(self) -> None:
        """Hear nothing until it goes on: what is told while its machine goes back is void."""
        with self._news:
            self._be_deaf()

    def _be_deaf(self) -> None:
        self._round += 1
        self._listener = None

    def close(self) -> None:
        """Listen no more."""
        self.be_deaf()
        self._client.close()

    def _listen(self) -> threading.Thread:
        """Listen in the background; nobody listens to an earlier listener any more."""
        self._round += 1
        self._listener = threading.Thread(target=self._hear, args=(self._round,), daemon=True)
        self._listener.start()
        return self._listener

    def _hear(self, mine: int) -> None:
        """Follow the writer that runs, or a new one, until the connection ends."""
        rest = b""
        try:
            runs = self._client.workspaces.runtime(self._workspace).exec
            tasks = [one for one in runs.list() if one.status == "running" and PATH in one.command]
            following = (
                runs.subscribe(tasks[0].id)
                if tasks
                else runs.stream(["python3", "-I", "-c", _WRITER, PATH])
            )
            with following as events:
                for event in events:
                    if isinstance(event, Output) and event.stream == "stdout":
                        *lines, rest = (rest + event.data).split(b"\n")
                        if not self._take(mine, lines):
                            return
                    elif isinstance(event, Output | Exited):
                        self._error = str(event)
        except (BastideError, httpx.HTTPError, httpx.StreamError, OSError) as error:
            self._error = str(error)
        finally:
            with self._news:
                if mine == self._round:
                    self._listener = None
                    self._news.notify_all()

    def _take(self, mine: int, lines: Iterable[bytes]) -> bool:
        """Believe what is told, unless it is of a time that is over."""
        with self._news:
            if mine != self._round:
                return False
            self._told.update(line.decode() for line in lines)
            self._news.notify_all()
            return True
