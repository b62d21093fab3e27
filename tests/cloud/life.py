"""The life of one workspace as the tests believe it to be, and what is done with it.

A base of stateful hypothesis machines: no rules, only what rules are made of.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine
from tests.cloud.cloud import Cloud
from tests.cloud.journal import PATH, Journal, records
from tests.cloud.processes import kill, until_whole
from tests.cloud.shown import MEANWHILE, showing

from bastide.client import Bastide, BastideError, ConnectionFailed

LONGEST = 90.0
"""Seconds after which an operation counts as one that hangs."""
_WRITE = """
import os, random, sys
name, seed = sys.argv[1], int(sys.argv[2])
data = random.Random(seed).randbytes(65536)
os.makedirs("/root/kept", exist_ok=True)
with open(f"/root/kept/{name}", "wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
directory = os.open("/root/kept", os.O_RDONLY)
os.fsync(directory)
"""
_READ = f"cd /root/kept 2> /dev/null && sha256sum *; echo --; cat {PATH} 2> /dev/null || true"
AFTER = {
    "start": "running",
    "stop": "stopped",
    "restart": "running",
    "pause": "paused",
    "resume": "running",
}
BEFORE = {
    "start": {"running", "stopped"},
    "stop": {"running", "stopped", "paused"},
    "restart": {"running", "stopped", "paused"},
    "pause": {"running", "paused"},
    "resume": {"running", "paused"},
}
_UNFINISHED = (
    "SELECT count(*) FROM operations WHERE workspace_id = ? AND state IN ('queued', 'running')"
)


@dataclass(frozen=True)
class Synced:
    """What was synced for certain: the digest of each file, and what the journal told of."""

    files: dict[str, str] = field(default_factory=dict)
    told: frozenset[str] = frozenset()

    def among(self, found: Synced) -> bool:
        """Whether it is all there; of the journal there may be more than was told."""
        return self.files == found.files and self.told <= found.told


class Life(RuleBasedStateMachine):
    """One workspace. `state` is what the model says, `files` the digest of each synced file.

    `kept` is what the last snapshot holds for certain, None when there is none. `instead` is what
    there may be in the place of what was synced since: a restore that a process was killed in may
    have been done or not, and looking tells.
    """

    cloud: Cloud
    client: Bastide
    end: float
    totals: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.state = "running"
        self.files: dict[str, str] = {}
        self.kept: Synced | None = None
        self.instead: Synced | None = None
        self.sizes: dict[str, Any] = {"cpus": 1.0, "memory_mb": 256, "disk_size_mb": 256}
        self.id = ""

    def create(self) -> None:
        """Have the workspace."""
        self.count("life")
        self.id = self.client.workspaces.create("debian-12", **self.sizes).id
        self.journal = Journal(self.cloud, self.id)

    def teardown(self) -> None:
        if not self.id:
            return
        try:
            if self.state == "paused":
                self.does("resume")
            elif self.state == "stopped":
                self.does("start")
            self.all_is_there()
            self.count("record told", len(self.journal.told))
        finally:
            self.client.workspaces.delete(self.id)
            self.journal.close()

    @property
    def going_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.end

    def write(self, name: str, seed: int) -> None:
        """Have one file synced inside."""
        self.count("write")
        self.command(["python3", "-c", _WRITE, name, str(seed)])
        self.files[name] = hashlib.sha256(random.Random(seed).randbytes(65536)).hexdigest()

    def other_sizes(self, cpus: float, memory: int, more: int) -> dict[str, Any]:
        """Sizes to ask for, of which the disk is larger by `more`."""
        disk = self.sizes["disk_size_mb"] + more
        return {"cpus": cpus, "memory_mb": memory, "disk_size_mb": disk}

    def does(self, verb: str) -> None:
        """One power call that must succeed."""
        fits = self.state in BEFORE[verb]
        self.timed(
            lambda: getattr(self.client.workspaces, verb)(self.id),
            {self.state, AFTER[verb], *MEANWHILE.get(verb, ())} if fits else {self.state},
        )
        self.state = AFTER[verb]

    def goes_back(self, kept: Synced) -> None:
        """What was synced since is void."""
        self.files, self.instead = dict(kept.files), None
        self.journal.go_back(kept.told)

    def killing(self, call: Callable[[], object], victims: tuple[str, ...], wait: float) -> bool:
        """Make a call and kill processes amid it; whether it was told to be done.

        Returns once all processes are back and nothing is going on any more.
        """
        with ThreadPoolExecutor(1) as pool:
            told = pool.submit(tries, call)
            time.sleep(wait)
            killed = kill(self.cloud, victims)
            done = told.result(timeout=LONGEST * 2)
        until_whole(self.cloud, killed)
        end = time.monotonic() + LONGEST
        while self.unfinished():
            assert time.monotonic() < end, "an operation does not end"
            time.sleep(0.05)
        return done

    def unfinished(self) -> int:
        """Operations of the workspace that have not ended."""
        file = self.cloud.settings.state_dir / "db" / "bastide.sqlite3"
        database = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=LONGEST)
        try:
            found: tuple[int] = database.execute(_UNFINISHED, (self.id,)).fetchone()
        finally:
            database.close()
        return found[0]

    def last_snapshot(self) -> str | None:
        """When the last snapshot was taken."""
        snapshot = self.client.workspaces.info(self.id).snapshot
        return str(snapshot.created_at) if snapshot is not None else None

    def known(self) -> Synced:
        """What is synced by now; in doubt looks into the workspace, which runs or is paused."""
        if self.instead is not None:
            was = self.state
            if was == "paused":
                self.does("resume")
            self.all_is_there()
            if was == "paused":
                self.does("pause")
        return Synced(dict(self.files), self.journal.told)

    def settled(self, allowed: set[str]) -> str:
        """The status once nothing is going on; one the model allows."""
        end = time.monotonic() + LONGEST
        while True:
            found = self.client.workspaces.get(self.id)
            if found.status in allowed and (found.status != "running" or found.ready):
                return found.status
            assert time.monotonic() < end, f"{found.status} is none of {allowed}"
            time.sleep(0.05)

    def command(self, argv: list[str]) -> str:
        """What a command prints; it may be done twice, as a connection may be cut off amid it."""
        end = time.monotonic() + LONGEST
        while True:
            runtime = self.client.workspaces.runtime(self.id)
            try:
                return runtime.exec.run(argv, timeout=60).check().stdout
            except ConnectionFailed:
                assert time.monotonic() < end
                self.count("command cut off")

    def all_is_there(self) -> None:
        """Every synced byte is."""
        synced = Synced(self.files, self.journal.told)
        sums, _, journal = self.command(["sh", "-c", _READ]).partition("--\n")
        lines = [line.split(maxsplit=1) for line in sums.splitlines()]
        found = Synced({name: digest for digest, name in lines}, records(journal))
        if self.instead is not None and not synced.among(found):
            synced = self.instead
            self.goes_back(synced)
        self.instead = None
        assert found.files == synced.files
        assert not synced.told - found.told, "records that were told of are not there"

    def showing(self, allowed: set[str]) -> AbstractContextManager[object]:
        """Only these statuses may be shown meanwhile."""
        return showing(self.client, self.id, allowed)

    def timed(self, call: Callable[[], Any], allowed: set[str]) -> Any:
        """Its answer, in time, with only these statuses shown meanwhile."""
        began = time.monotonic()
        with self.showing(allowed):
            answer = call()
            assert time.monotonic() - began < LONGEST
        return answer

    def count(self, what: str, many: int = 1) -> None:
        """For the summary."""
        self.totals[what] = self.totals.get(what, 0) + many


def tries(call: Callable[[], object]) -> bool:
    """A call that may be lost with a process; whether it was told to be done."""
    try:
        call()
    except BastideError:
        return False
    return True
